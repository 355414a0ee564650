"""Networks drawn at random from blocks that move samples' rows about, and batches of unequal sequences for them.

Every network maps tokens `[N, T, WIDTH]`, of which a mask says what is padding, to `[N, K]`, each sample by itself. Its
blocks select, sort, pack, route, scatter and write tokens in the ways that networks do.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

WIDTH, VOCABULARY, CLASSES, LONGEST = 4, 7, 3, 12


@dataclass
class State:
    """What goes from block to block: tokens `[N, T, WIDTH]`, whether each is one `[N, T]`, and their ids `[N, T]`."""

    x: Tensor
    mask: Tensor
    ids: Tensor


class Block(nn.Module):
    """One block. `self.layer` is a linear layer that it may share with an earlier block."""

    def __init__(self, rng: random.Random, shared: list[nn.Linear]) -> None:
        super().__init__()
        if shared and rng.random() < 0.2:
            self.layer = rng.choice(shared)
        else:
            self.layer = nn.Linear(WIDTH, WIDTH)
            shared.append(self.layer)
        self.act: Callable[[Tensor], Tensor] = rng.choice([torch.tanh, functional.gelu, functional.silu, torch.sin])
        self.way = rng.randrange(12)
        self.residual = rng.random() < 0.6
        self.make()

    def make(self) -> None:
        """Further parameters."""

    def change(self, s: State) -> Tensor:
        """The new tokens."""
        raise NotImplementedError

    def forward(self, s: State) -> State:
        """The state after this block."""
        x = self.change(s)
        return State(s.x + x if self.residual and x.shape == s.x.shape else x, s.mask, s.ids)

    def apply_layer(self, x: Tensor) -> Tensor:
        """The linear layer and the activation."""
        return self.act(self.layer(x))


class Perceptron(Block):
    """Position by position, in the usual layout or with other axes first."""

    def change(self, s: State) -> Tensor:
        if self.way % 4 == 0:  # samples second
            return self.apply_layer(s.x.transpose(0, 1)).transpose(0, 1)
        if self.way % 4 == 1:  # one row per token
            return self.apply_layer(s.x.flatten(0, 1)).view_as(s.x)
        if self.way % 4 == 2:  # one row per token, samples fastest
            rows = self.apply_layer(s.x.transpose(0, 1).reshape(-1, WIDTH))
            return rows.view(s.x.shape[1], s.x.shape[0], WIDTH).transpose(0, 1)
        return self.apply_layer(s.x)


class Norm(Block):
    """A norm."""

    def make(self) -> None:
        self.norm = nn.LayerNorm(WIDTH)

    def change(self, s: State) -> Tensor:
        return self.apply_layer(self.norm(s.x))


class Scale(Block):
    """Parameters that are used elementwise, some of them only at some positions."""

    def make(self) -> None:
        self.gain, self.token = nn.Parameter(torch.randn(WIDTH)), nn.Parameter(torch.randn(WIDTH))

    def change(self, s: State) -> Tensor:
        x = s.x * self.gain
        way = self.way % 6
        if way == 0:
            x[~s.mask] = self.token
        elif way == 1:
            x = torch.where(s.mask[..., None], x, self.token)
        elif way == 2:
            x[s.ids == 1] = self.token
        elif way == 3:
            x = x.masked_fill(~s.mask[..., None], 0.0) + self.token
        elif way == 4:
            chosen = s.ids == 2
            x[chosen] = x[chosen] * self.token
        else:
            x[:, 0] = x[:, 0] + self.token
        return torch.tanh(x)


class Attention(Block):
    """One head of attention, padding masked."""

    def make(self) -> None:
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)

    def change(self, s: State) -> Tensor:
        q, k, v = self.qkv(s.x).chunk(3, -1)
        if self.way % 2:
            mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=s.mask[:, None, :])
        else:
            scores = (q @ k.transpose(1, 2)).masked_fill(~s.mask[:, None, :], -1e9)
            mixed = scores.softmax(-1) @ v
        return self.apply_layer(mixed)


class Unpadded(Block):
    """Only what is no padding goes through the layers, one row per token, and back."""

    def make(self) -> None:
        self.norm = nn.LayerNorm(WIDTH)

    def change(self, s: State) -> Tensor:
        way, flat = self.way, s.x.reshape(-1, WIDTH)
        where = s.mask.flatten().nonzero().flatten()
        if way % 3 == 0:
            rows = s.x[s.mask]
        elif way % 3 == 1:
            rows = flat.index_select(0, where)
        else:
            rows = flat.gather(0, where[:, None].expand(-1, WIDTH))
        rows = self.apply_layer(self.norm(rows) if way % 2 else rows)
        back = torch.zeros_like(flat)
        if way % 4 == 0:
            out = torch.zeros_like(s.x)
            out[s.mask] = rows
            return out
        if way % 4 == 1:
            return back.index_copy(0, where, rows).view_as(s.x)
        if way % 4 == 2:
            return back.scatter(0, where[:, None].expand(-1, WIDTH), rows).view_as(s.x)
        return back.index_put((where,), rows).view_as(s.x)


class SortedTime(Block):
    """Positions in the order of a score, through a convolution, and back."""

    def make(self) -> None:
        self.conv = nn.Conv1d(WIDTH, WIDTH, 3, padding=1)

    def change(self, s: State) -> Tensor:
        order = s.x[..., 0].argsort(1) if self.way % 2 else s.x.sum(-1).sort(1).indices
        wide = order[..., None].expand(-1, -1, WIDTH)
        x = self.act(self.conv(s.x.gather(1, wide).transpose(1, 2))).transpose(1, 2)
        back = order.argsort(1)[..., None].expand(-1, -1, WIDTH)
        return self.layer(x.gather(1, back))


class SortedSamples(Block):
    """Samples in the order of their lengths, and back."""

    def change(self, s: State) -> Tensor:
        order = s.mask.sum(1).argsort(descending=True, stable=True)
        x = s.x[order] if self.way % 2 else s.x.index_select(0, order)
        x = self.apply_layer(x.transpose(0, 1) if self.way % 3 == 0 else x)
        x = x.transpose(0, 1) if self.way % 3 == 0 else x
        return x[order.argsort()]


class Packed(Block):
    """A packed sequence: a layer on its data, or a recurrent layer."""

    def make(self) -> None:
        self.recurrent = nn.GRU(WIDTH, WIDTH, batch_first=True) if self.way % 4 == 0 else None

    def change(self, s: State) -> Tensor:
        lengths = s.mask.sum(1)
        packed = pack_padded_sequence(s.x, lengths, batch_first=True, enforce_sorted=False)
        if self.recurrent is not None:
            result = self.recurrent(packed)[0]
        else:
            data = self.apply_layer(packed.data)
            result = PackedSequence(data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)
        return pad_packed_sequence(result, batch_first=True, total_length=s.x.shape[1])[0]


class Experts(Block):
    """Tokens are routed to the experts with the highest scores, and what these say is added up."""

    def make(self) -> None:
        self.gate = nn.Linear(WIDTH, 3)
        self.experts = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def change(self, s: State) -> Tensor:
        tokens = s.x[s.mask] if self.way % 2 else s.x.reshape(-1, WIDTH)
        weights, chosen = self.gate(tokens).softmax(-1).topk(1 + self.way % 2, -1)
        mixed = torch.zeros_like(tokens)
        for number, expert in enumerate(self.experts):
            rows, slots = (chosen == number).nonzero(as_tuple=True)
            if self.way % 3 == 0 and not len(rows):
                continue
            mixed.index_add_(0, rows, self.act(expert(tokens[rows])) * weights[rows, slots, None])
        if not self.way % 2:
            return mixed.view_as(s.x)
        out = torch.zeros_like(s.x)
        out[s.mask] = mixed
        return out


class Dispatched(Block):
    """Tokens are sorted by their expert, dealt out in pieces, joined and put back in order."""

    def make(self) -> None:
        self.gate = nn.Linear(WIDTH, 2)
        self.experts = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))

    def change(self, s: State) -> Tensor:
        tokens = s.x.reshape(-1, WIDTH)
        scores = self.gate(tokens)
        chosen = scores.argmax(-1)
        order = chosen.argsort(stable=True)
        counts = torch.bincount(chosen, minlength=2).tolist()
        pieces = tokens[order].split(counts)
        joined = torch.cat([self.act(expert(piece)) for expert, piece in zip(self.experts, pieces, strict=True)])
        if self.way % 2:
            out = joined[order.argsort()]
        else:
            out = torch.empty_like(tokens)
            out[order] = joined
        return (out * scores.softmax(-1).amax(-1, keepdim=True)).view_as(s.x)


class Lookup(Block):
    """Tables that are looked up by token, by position, or once for every token that occurs."""

    def make(self) -> None:
        self.table, self.places = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(LONGEST + 2, WIDTH)

    def change(self, s: State) -> Tensor:
        if self.way % 4 == 0:  # every token once
            found, back = s.ids.unique(return_inverse=True)
            return s.x + self.apply_layer(self.table(found))[back]
        if self.way % 4 == 1:
            return s.x + self.places(torch.arange(s.x.shape[1]))
        if self.way % 4 == 2:
            rows = self.table(s.ids[s.mask])
            out = torch.zeros_like(s.x)
            out[s.mask] = rows
            return self.apply_layer(out)
        return s.x * self.table(s.ids)


class Convolution(Block):
    """Over time."""

    def make(self) -> None:
        self.conv = nn.Conv1d(WIDTH, WIDTH, 3, padding=1, groups=2 if self.way % 2 else 1)

    def change(self, s: State) -> Tensor:
        return self.act(self.conv((s.x * s.mask[..., None]).transpose(1, 2))).transpose(1, 2)


class ClassToken(Block):
    """One more token in front."""

    def make(self) -> None:
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH))

    def forward(self, s: State) -> State:
        n = len(s.x)
        if s.x.shape[1] > LONGEST:
            return State(self.apply_layer(s.x), s.mask, s.ids)
        x = torch.cat([self.token.expand(n, -1, -1), self.layer(s.x)], 1)
        mask = torch.cat([s.mask.new_ones(n, 1), s.mask], 1)
        return State(x, mask, torch.cat([s.ids.new_zeros(n, 1), s.ids], 1))


class SomeSamples(Block):
    """A layer that only some samples need; in some batches none does."""

    def change(self, s: State) -> Tensor:
        chosen = s.ids[:, 0] > VOCABULARY // 2
        x = s.x.clone()
        if self.way % 3 == 0 and not bool(chosen.any()):
            return x
        if self.way % 2:
            x[chosen] = self.apply_layer(x[chosen])
        else:
            where = chosen.nonzero().flatten()
            x = x.index_add(0, where, self.apply_layer(x[where]))
        return x


class Views(Block):
    """Parts of a tensor are written through views of it."""

    def change(self, s: State) -> Tensor:
        x = (s.x * 1.0).contiguous()
        if self.way % 3 == 0:
            x[:, :2] = self.apply_layer(s.x[:, :2])
        elif self.way % 3 == 1:
            x.select(1, 0).add_(self.apply_layer(s.x[:, -1]))
        else:
            x.view(-1, WIDTH)[s.mask.flatten()] = self.apply_layer(s.x[s.mask])
        return x


BLOCKS: tuple[type[Block], ...] = (
    *(Perceptron, Norm, Scale, Attention, Unpadded, SortedTime, SortedSamples, Packed, Experts, Dispatched, Lookup),
    *(Convolution, ClassToken, SomeSamples, Views),
)


class Network(nn.Module):
    """Blocks one after another, what is no padding pooled, and a head."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        shared: list[nn.Linear] = []
        self.blocks = nn.ModuleList(rng.choice(BLOCKS)(rng, shared) for _ in range(rng.randint(1, 6)))
        self.pool = rng.randrange(6)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor, mask: Tensor, ids: Tensor) -> Tensor:
        """`[N, CLASSES]`."""
        state = State(x, mask, ids)
        for block in self.blocks:
            state = block(state)
        return self.head(self.pooled(state))

    def pooled(self, s: State) -> Tensor:
        """`[N, WIDTH]`."""
        x, many = s.x, s.mask[..., None]
        if self.pool == 0:
            return (x * many).sum(1) / many.sum(1)
        if self.pool == 1:
            return x.masked_fill(~many, -1e9).amax(1)
        if self.pool == 2:
            return x[:, 0]
        if self.pool == 3:
            return x[torch.arange(len(x)), s.mask.sum(1) - 1]
        owner = s.mask.nonzero()[:, 0]  # of every token, as in a batch of graphs
        total = x.new_zeros(len(x), WIDTH).index_add_(0, owner, torch.tanh(x[s.mask]))
        return total if self.pool == 4 else total / s.mask.sum(1, keepdim=True)


def batch(rng: random.Random, samples: int, ragged: bool = True) -> dict[str, Tensor]:
    """Sequences of unequal lengths, padded to the longest, or a little more."""
    length = rng.randint(2, 5)
    lengths = torch.tensor([rng.randint(1, length) if ragged else length for _ in range(samples)])
    mask = torch.arange(length) < lengths[:, None]
    generator = torch.Generator().manual_seed(rng.randrange(1 << 30))
    x = torch.randn(samples, length, WIDTH, dtype=torch.float64, generator=generator)
    ids = torch.randint(VOCABULARY, (samples, length), generator=generator)
    labels = torch.randint(CLASSES, (samples,), generator=generator)
    return {"x": x, "mask": mask, "ids": ids * mask, "labels": labels}


def made(seed: int) -> tuple[Network, list[dict[str, Tensor]]]:
    """The network of this number and its batches: 2 to 9 samples, split anyhow."""
    rng = random.Random(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network(rng).double().eval()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
    ragged = rng.random() < 0.8
    sizes = [rng.randint(1, 4) for _ in range(rng.randint(1, 3))]
    return network, [batch(rng, size + (len(sizes) == 1), ragged) for size in sizes]


def described(network: Network) -> str:
    """Its blocks and how they do it, for messages."""
    parts = [f"{type(block).__name__}/{block.way}{'+' if block.residual else ''}" for block in network.blocks]
    return " → ".join([*parts, f"pool {network.pool}"])


def measured(seed: int) -> dict[str, Any]:
    """Network number `seed` by the library and by the reference: the path that was taken, and the worst error.

    Even numbers measure MAS, odd ones the empirical Fisher information. `path` is "fast" (no parameter one sample at
    a time), "slow" (some are, with a warning) or "refused" (one sentence).
    """
    import warnings

    import forgetless
    from exactness import worst

    network, data = made(seed)
    ours, theirs = forgetless.mas, forgetless.reference.mas
    options: dict[str, Any] = {}
    proof = {"prove": seed % 4 > 1}  # without it nothing saves the numbers
    if seed % 2:
        ours, theirs, options = forgetless.fisher, forgetless.reference.fisher, {"labels": "empirical"}  # type: ignore
    found: dict[str, Any] = {"seed": seed, "network": described(network)}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            importance = ours(network, data, progress=False, **proof, **options)  # type: ignore[operator]
        except forgetless.ForgetlessError as error:
            return {**found, "path": "refused", "why": str(error)[:300]}
    said = [str(each.message) for each in caught]
    slow = [each for each in said if "one sample at a time" in each]
    expected = theirs(network, data, **options)  # type: ignore[operator]
    path = "slow" if slow else "fast"
    other = [each for each in said if each not in slow]
    return {
        **found,
        "path": path,
        "why": "; ".join(_reasons(slow))[:300],
        "said": other,
        "error": worst(importance, expected),
    }


def _reasons(said: list[str]) -> list[str]:
    """Why parameters are measured one sample at a time, as the warnings say it."""
    return [each.partition(" (")[2].partition("). The numbers")[0] for each in said]
