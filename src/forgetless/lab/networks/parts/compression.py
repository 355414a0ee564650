"""Compressors of memories, `[N, c · k, width] → [N, k, width]`, and what each of them learns from.

How a compressor is trained is its loss: "attention" (what the layer finds by content in the compressed memories is what
it finds in the old ones), "autoencoding" (the old ones can be restored), "bptt" (the network's own loss, through the
window after), or "none" for those that have nothing to learn. Rae et al. 2019, arXiv 1911.05507.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn
from torch.nn import functional as F

from forgetless.errors import ForgetlessError
from forgetless.lab.networks.parts.relative_attention import RelativeAttention
from forgetless.model.parameters import listing

LOSSES = ("none", "bptt", "autoencoding", "attention")


class Compressor(nn.Module, ABC):
    """Makes one memory of every `rate` ones.

    Attributes:
        learns: whether it has weights.
        wants_attention: whether it asks how much attention every memory has received.
    """

    learns = False
    wants_attention = False

    def __init__(self, width: int, rate: int) -> None:
        super().__init__()
        self.width, self.rate = width, rate

    @abstractmethod
    def forward(self, old: Tensor, attention: Tensor | None = None) -> Tensor:
        """Compress.

        Args:
            old: memories, oldest first, `[N, rate · k, width]`.
            attention: the mean attention that each has received, `[N, rate · k]`, for those that ask for it.

        Returns:
            `[N, k, width]`, oldest first.
        """

    def _groups(self, old: Tensor) -> Tensor:
        """`[N, k, rate, width]`."""
        return old.reshape(len(old), -1, self.rate, self.width)


class MaxPool(Compressor):
    """The largest number of `rate` neighbors, for every feature."""

    def forward(self, old: Tensor, attention: Tensor | None = None) -> Tensor:
        """See `Compressor.forward`."""
        return self._groups(old).amax(2)


class MeanPool(Compressor):
    """The mean of `rate` neighbors."""

    def forward(self, old: Tensor, attention: Tensor | None = None) -> Tensor:
        """See `Compressor.forward`."""
        return self._groups(old).mean(2)


class Convolution(Compressor):
    """A 1-D convolution whose kernel and stride are `rate`: a linear map of `rate` neighbors."""

    learns = True

    def __init__(self, width: int, rate: int) -> None:
        super().__init__(width, rate)
        self.convolution = nn.Conv1d(width, width, rate, stride=rate)

    def forward(self, old: Tensor, attention: Tensor | None = None) -> Tensor:
        """See `Compressor.forward`."""
        return _mapped(self._groups(old), self.convolution)


class DilatedConvolution(Compressor):
    """A convolution over memories that are k apart, so that each result draws on the whole evicted part.

    Result i is a linear map of the memories i, i + k, i + 2 k, …; for k = 1 that is `Convolution`. The paper gives no
    dilation; this one needs no padding and gives as many results.
    """

    learns = True

    def __init__(self, width: int, rate: int) -> None:
        super().__init__(width, rate)
        self.convolution = nn.Conv1d(width, width, rate)

    def forward(self, old: Tensor, attention: Tensor | None = None) -> Tensor:
        """See `Compressor.forward`."""
        apart = old.reshape(len(old), self.rate, -1, self.width).transpose(1, 2)
        return _mapped(apart, self.convolution)


def _mapped(groups: Tensor, convolution: nn.Conv1d) -> Tensor:
    """The convolution of groups `[N, k, rate, width]` that do not overlap: a linear map, several times faster so."""
    weight = convolution.weight.transpose(1, 2).flatten(1)  # [out, rate · in]
    return F.linear(groups.flatten(2), weight, convolution.bias)


class MostUsed(Compressor):
    """Those of the evicted memories that received the most attention so far, as they are and in their order."""

    wants_attention = True

    def forward(self, old: Tensor, attention: Tensor | None = None) -> Tensor:
        """See `Compressor.forward`."""
        assert attention is not None
        chosen = attention.topk(old.shape[1] // self.rate, 1).indices.sort(1).values
        return old.gather(1, chosen[..., None].expand(-1, -1, self.width))


class Decoder(nn.Module):
    """The way back for auto-encoding, `[N, k, width] → [N, rate · k, width]`: a transposed convolution."""

    def __init__(self, width: int, rate: int) -> None:
        super().__init__()
        self.convolution = nn.ConvTranspose1d(width, width, rate, stride=rate)

    def forward(self, compressed: Tensor) -> Tensor:
        """Memories like those that were compressed."""
        found: Tensor = self.convolution(compressed.transpose(1, 2))
        return found.transpose(1, 2)


COMPRESSORS: dict[str, type[Compressor]] = {
    "max": MaxPool,
    "mean": MeanPool,
    "conv": Convolution,
    "dilated": DilatedConvolution,
    "most-used": MostUsed,
}


def compressor(name: str, width: int, rate: int, loss: str) -> Compressor:
    """The compressor of that name.

    Raises:
        ForgetlessError: no compressor or loss has that name, or the loss is not for this compressor.
    """
    if name not in COMPRESSORS:
        raise ForgetlessError(f"there is no compressor {name!r}; there are {listing(COMPRESSORS)}.")
    if loss not in LOSSES:
        raise ForgetlessError(f"there is no compression loss {loss!r}; there are {listing(LOSSES)}.")
    found = COMPRESSORS[name](width, rate)
    if found.learns and loss == "none":
        raise ForgetlessError(f"the compressor {name!r} has weights: give it a loss, {listing(LOSSES[1:])}.")
    if not found.learns and loss != "none":
        raise ForgetlessError(f"the compressor {name!r} has nothing to learn: its loss is 'none', not {loss!r}.")
    return found


def attention_loss(attention: RelativeAttention, x: Tensor, old: Tensor, compressed: Tensor) -> Tensor:
    """How much of what a layer finds in old memories is lost by compressing them.

        ‖attn(h, old) − attn(h, f_c(old))‖² / numbers

    Content attention, over exactly the evicted part. Its gradient reaches `compressed` alone.

    Args:
        attention: the layer's; its weights are read as constants.
        x: the layer's input h, `[N, T, width]`.
        old: the evicted memories, `[N, c · k, width]`.
        compressed: `f_c(old)`, `[N, k, width]`, with its graph.
    """
    found, wanted = attention.content(x.detach(), compressed, old.detach())
    return F.mse_loss(found, wanted)


def autoencoding_loss(decoder: Decoder, old: Tensor, compressed: Tensor) -> Tensor:
    """`‖old − g(f_c(old))‖² / numbers`; its gradient reaches the compressor and its decoder alone."""
    return F.mse_loss(decoder(compressed), old.detach())
