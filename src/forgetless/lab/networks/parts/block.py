"""A layer of the Compressive Transformer: attention over the past, then two linear layers, each with its residual."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from forgetless.lab.networks.parts.compression import Decoder, attention_loss, autoencoding_loss, compressor
from forgetless.lab.networks.parts.relative_attention import RelativeAttention


class Block(nn.Module):
    """One layer, `[N, T, width] → [N, T, width]`.

    Args:
        width: of the layer.
        heads: of its attention.
        hidden: the numbers between the two linear layers.
        pre_norm: whether it normalizes what comes in, instead of the sums, as the paper does.
        dropout: the share of numbers dropped in training.
        compression: the compressor's name, its rate and its loss; None for a layer without compressed memories.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        pre_norm: bool,
        dropout: float,
        compression: tuple[str, int, str] | None,
    ) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.attention = RelativeAttention(width, heads, dropout)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, width)
        )
        self.drop = nn.Dropout(dropout)
        self.loss = "none" if compression is None else compression[2]
        self.compressor = None
        if compression is not None:
            name, rate, _ = compression
            self.compressor = compressor(name, width, rate, self.loss)
            if self.loss == "autoencoding":
                self.decoder = Decoder(width, rate)

    def forward(self, x: Tensor, past: Tensor, encoded: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The layer's output, and its attention weights.

        Args:
            x: the layer's input at the current positions, `[N, T, width]`.
            past: its inputs before, compressed and recent ones, `[N, L − T, width]`.
            encoded: the encodings of distances, see `sinusoids`.
            mask: see `causal`.
        """
        if self.pre_norm:
            found, weights = self.attention(self.norm1(x), self.norm1(past), encoded, mask)
            x = x + self.drop(found)
            return x + self.drop(self.feed_forward(self.norm2(x))), weights
        found, weights = self.attention(x, past, encoded, mask)
        x = self.norm1(x + self.drop(found))
        return self.norm2(x + self.drop(self.feed_forward(x))), weights

    def compress(self, old: Tensor, attention: Tensor | None) -> Tensor:
        """Compressed memories `[N, k, width]` of evicted ones `[N, c · k, width]`, which are read as constants."""
        assert self.compressor is not None
        found: Tensor = self.compressor(old.detach(), attention)
        return found

    def compression_loss(self, x: Tensor, old: Tensor, compressed: Tensor) -> Tensor:
        """What the compressor learns from, as its loss is called; 0 where that is none of the layer's own.

        Args:
            x: the layer's input, `[N, T, width]`.
            old: the evicted memories.
            compressed: what `compress` made of them.
        """
        if self.loss == "attention":
            x, old, compressed = map(self._constant_norm, (x.detach(), old.detach(), compressed))
            return attention_loss(self.attention, x, old, compressed)
        if self.loss == "autoencoding":
            return autoencoding_loss(self.decoder, old, compressed)
        return compressed.new_zeros(())

    def _constant_norm(self, x: Tensor) -> Tensor:
        """As attention sees it, the weights of the normalization read as constants."""
        if not self.pre_norm:
            return x
        norm = self.norm1
        return F.layer_norm(x, norm.normalized_shape, norm.weight.detach(), norm.bias.detach(), norm.eps)
