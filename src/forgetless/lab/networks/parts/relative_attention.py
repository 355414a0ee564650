"""Attention that knows how far away a position is, after Transformer-XL (Dai et al. 2019, arXiv 1901.02860).

    score_hnij = (q_hni + u_h) · k_hnj + (q_hni + v_h) · r_h(i − j),    r_h(Δ) = the h-th part of W_r sin/cos(Δ)

over everything a query may see: `[compressed; recent; current]`, one position after the other.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def sinusoids(positions: int, width: int, like: Tensor) -> Tensor:
    """The encodings of the distances positions − 1, …, 0, −1, `[positions + 1, width]`: sines, then cosines.

    The last one, of a position that is not seen, makes room for `shifted`.
    """
    distances = torch.arange(positions - 1, -2, -1, device=like.device, dtype=torch.float64)
    rates = 10000 ** (-torch.arange(0, width, 2, device=like.device, dtype=torch.float64) / width)
    angles = distances[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1).to(like.dtype)


def shifted(by_distance: Tensor) -> Tensor:
    """From scores by distance to scores by position, without a copy.

    Row i of `[…, T, L + 1]` holds the distances L − 1 … −1; what belongs to key j is T − 1 − i + j places in. Read as
    one line, row i of the result begins at T − 1 + i L: the line is cut there into rows of L.

    Returns:
        `[…, T, L]`; where key j comes after query i it holds numbers of other rows, which the mask removes.
    """
    *batch, queries, distances = by_distance.shape
    line = by_distance.reshape(*batch, queries * distances)
    keys = distances - 1
    return line.narrow(-1, queries - 1, queries * keys).view(*batch, queries, keys)


def causal(queries: int, keys: int, like: Tensor) -> Tensor:
    """What is added to scores `[T, L]`: −∞ where key j comes after query i, which is key L − T + i; else 0."""
    hidden = torch.full((queries, keys), float("-inf"), device=like.device, dtype=like.dtype)
    return hidden.triu(keys - queries + 1)


class RelativeAttention(nn.Module):
    """Attention of `heads` heads with relative positions.

    Args:
        width: of what comes in and goes out.
        heads: how many; they divide the width.
        dropout: the share of attention weights that are dropped in training.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.distance = nn.Linear(width, width, bias=False)
        self.content_bias = nn.Parameter(torch.zeros(heads, 1, width // heads))
        self.distance_bias = nn.Parameter(torch.zeros(heads, 1, width // heads))
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, past: Tensor, encoded: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What each position finds in all that it may see.

        Args:
            x: the current positions, `[N, T, width]`.
            past: the positions before, `[N, L − T, width]`; a constant costs no backward pass.
            encoded: `sinusoids(L, width)`.
            mask: `causal(T, L)`.

        Returns:
            The found `[N, T, width]` and the attention weights `[heads, N, T, L]`.
        """
        n, t, width = x.shape
        queries = self._split(self.query(x)) * (width // self.heads) ** -0.5  # [h, N, T, width / h]
        seen = torch.cat([self.key_value(past), self.key_value(x)], 1)
        keys, values = map(self._split, seen.chunk(2, -1))
        scale = (width // self.heads) ** -0.5
        distances = self.distance(encoded).view(len(encoded), self.heads, -1).permute(1, 2, 0)
        about = (queries + self.distance_bias[:, None] * scale).view(self.heads, n * t, -1)
        by_distance = torch.bmm(about, distances).view(self.heads, n, t, -1)  # [h, N, T, L + 1]
        by_content = (queries + self.content_bias[:, None] * scale) @ keys.transpose(-2, -1)
        weights = (by_content + shifted(by_distance) + mask).softmax(-1)
        kept = F.dropout(weights, self.dropout, self.training)
        return self.out(self._joined(kept @ values)), weights

    def content(self, x: Tensor, *memories: Tensor) -> list[Tensor]:
        """Attention of `x` `[N, T, width]` over each of the memories `[N, m, width]` by content, without positions.

        Every weight is read as a constant: no gradient reaches this layer, whatever is done with the results.
        """
        queries = self._split(F.linear(x, self.query.weight.detach()))
        found = []
        for memory in memories:
            keys, values = map(self._split, F.linear(memory, self.key_value.weight.detach()).chunk(2, -1))
            found.append(self._joined(F.scaled_dot_product_attention(queries, keys, values)))
        return found

    def _split(self, x: Tensor) -> Tensor:
        """`[N, T, width]` → `[heads, N, T, width / heads]`."""
        return x.view(*x.shape[:2], self.heads, -1).permute(2, 0, 1, 3).contiguous()

    def _joined(self, x: Tensor) -> Tensor:
        return x.permute(1, 2, 0, 3).flatten(2)
