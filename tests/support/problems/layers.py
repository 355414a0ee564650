"""Every layer of `torch.nn` that owns parameters, between smooth neighbors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from problems.problem import Problem, ids, module


class Sandwich(nn.Module):
    """A layer between smooth neighbors, so that its rule is tested on gradients that come from above and go on below.

    Above it a tanh; below it a linear layer over the last axis, whose importance is right only if the layer passes the
    right gradient down.
    """

    def __init__(self, layer: nn.Module, size: int) -> None:
        super().__init__()
        self.below, self.layer = nn.Linear(size, size), layer

    def forward(self, x: Tensor) -> Tensor:
        result = self.layer(torch.tanh(self.below(x)))
        return torch.tanh(result[0] if isinstance(result, tuple) else result)


class Applied(nn.Module):
    """`function(layer, x)`: a layer that wants more than one input."""

    def __init__(self, layer: nn.Module, function: Callable[[nn.Module, Tensor], Tensor | tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.layer, self.function = layer, function

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.function(self.layer, x)


def layer(name: str, build: Callable[[], nn.Module], *shape: int) -> Problem:
    """A layer on random numbers of `shape`, sample axis first."""
    return module(name, "layer", lambda: Sandwich(build(), shape[-1]), shape)


def chain(name: str, shape: tuple[int, ...], *parts: Callable[[], nn.Module]) -> Problem:
    """Layers in a row on random numbers of `shape`."""
    return layer(name, lambda: nn.Sequential(*(part() for part in parts)), *shape)


def lookup(name: str, build: Callable[[], nn.Module], batch: Callable[[], Tensor]) -> Problem:
    """A table on random ids."""
    return module(name, "layer", lambda: nn.Sequential(build(), nn.Tanh(), nn.Linear(3, 2)), batch)


def second(attend: Callable[[], nn.Module]) -> nn.Module:
    """A layer whose sample axis is the second one."""

    def function(layer: nn.Module, x: Tensor) -> Tensor:
        result = layer(x.transpose(0, 1))
        return (result[0] if isinstance(result, tuple) else result).transpose(0, 1)

    return Applied(attend(), function)


def itself(build: Callable[[], nn.Module]) -> nn.Module:
    """Attention of a sequence to itself."""
    return Applied(build(), lambda layer, x: layer(x, x, x))


def unrolled(cell: Callable[[], nn.RNNCellBase]) -> nn.Module:
    """A recurrent cell applied step by step over `[N, T, I]`."""

    def function(cell: nn.Module, x: Tensor) -> Tensor:
        state = None
        for step in x.unbind(1):
            state = cell(step, state)
        return state[0] if isinstance(state, tuple) else state

    return Applied(cell(), function)


LINEAR = [
    layer("Linear, 2-D", partial(nn.Linear, 5, 3), 4, 5),
    layer("Linear, 2-D, no bias", partial(nn.Linear, 5, 3, bias=False), 4, 5),
    layer("Linear, 3-D", partial(nn.Linear, 5, 3), 4, 6, 5),
    layer("Linear, 3-D, no bias", partial(nn.Linear, 5, 3, bias=False), 4, 6, 5),
    layer("Linear, 4-D", partial(nn.Linear, 5, 3), 4, 2, 3, 5),
    layer("Linear, 4-D, no bias", partial(nn.Linear, 5, 3, bias=False), 4, 2, 3, 5),
    layer("Linear, one output", partial(nn.Linear, 5, 1), 4, 5),
    layer("Linear, more positions than weights", partial(nn.Linear, 2, 2), 4, 40, 2),
    layer("Linear on a transposed input", lambda: Applied(nn.Linear(6, 3), lambda layer, x: layer(x.mT)), 4, 6, 5),
    layer("Bilinear", lambda: Applied(nn.Bilinear(5, 5, 3), lambda layer, x: layer(x, x.sin())), 4, 5),
    layer("Bilinear, 3-D", lambda: Applied(nn.Bilinear(5, 5, 3), lambda layer, x: layer(x, x.sin())), 4, 2, 5),
]

SLIDING: dict[str, dict[str, Any]] = {
    "plain": {},
    "no bias": {"bias": False},
    "stride 2": {"stride": 2},
    "stride 3 that leaves a rest": {"stride": 3, "kernel_size": 2},
    "padding 1": {"padding": 1},
    "dilation 2": {"dilation": 2, "padding": 2},
    "stride 2, dilation 2, padding 1": {"stride": 2, "dilation": 2, "padding": 1},
    "groups 2": {"groups": 2, "padding": 1},
    "groups 2, stride 2, no bias": {"groups": 2, "stride": 2, "bias": False},
    "depthwise": {"groups": 4, "padding": 1},
    "depthwise, stride 2": {"groups": 4, "padding": 1, "stride": 2},
    "depthwise, stride 3 that leaves a rest": {"groups": 4, "stride": 3, "kernel_size": 2},
    "depthwise, dilation 2": {"groups": 4, "dilation": 2, "padding": 2},
    "depthwise, two outputs a channel": {"groups": 4, "out_channels": 8},
    "pointwise": {"kernel_size": 1},
    "pointwise, stride 2": {"kernel_size": 1, "stride": 2},
    "pointwise, padding 1": {"kernel_size": 1, "padding": 1},
    "pointwise, groups 2": {"kernel_size": 1, "groups": 2},
    "even kernel": {"kernel_size": 2},
    "kernel larger than the input": {"kernel_size": 11, "padding": 5},
    "padding 'valid'": {"padding": "valid"},
    "padding 'same'": {"padding": "same"},
    "padding 'same', dilation 2": {"padding": "same", "dilation": 2},
    "padding 'same', even kernel": {"padding": "same", "kernel_size": 2},
    "padding 'same', even kernel, dilation 2": {"padding": "same", "kernel_size": 2, "dilation": 2},
    "padding reflect": {"padding": 1, "padding_mode": "reflect"},
    "padding replicate": {"padding": 1, "padding_mode": "replicate"},
    "padding circular": {"padding": 1, "padding_mode": "circular"},
    "padding 'same' circular, even kernel": {"padding": "same", "kernel_size": 2, "padding_mode": "circular"},
}

TRANSPOSED: dict[str, dict[str, Any]] = {
    "plain": {},
    "no bias, stride 2": {"bias": False, "stride": 2},
    "stride 2, output padding": {"stride": 2, "padding": 1, "output_padding": 1},
    "groups 2, dilation 2": {"groups": 2, "dilation": 2},
    "depthwise": {"groups": 4},
    "pointwise": {"kernel_size": 1},
}


def convolutions(build: Callable[..., nn.Module], options: dict[str, dict[str, Any]], *size: int) -> list[Problem]:
    """A convolution class under each of `options`, on three samples of four channels."""
    usual = {"in_channels": 4, "out_channels": 4, "kernel_size": 3}
    word = getattr(build, "__name__", "")
    return [layer(f"{word}, {what}", partial(build, **{**usual, **own}), 3, 4, *size) for what, own in options.items()]


CONVOLUTIONS = [
    *convolutions(nn.Conv1d, SLIDING, 9),
    *convolutions(nn.Conv2d, SLIDING, 7, 8),
    *convolutions(nn.Conv3d, SLIDING, 3, 4, 5),
    *convolutions(nn.ConvTranspose1d, TRANSPOSED, 6),
    *convolutions(nn.ConvTranspose2d, TRANSPOSED, 4, 5),
    *convolutions(nn.ConvTranspose3d, TRANSPOSED, 2, 3, 3),
    layer("Conv2d, every axis its own", partial(nn.Conv2d, 4, 6, (3, 2), (2, 1), (0, 2), (1, 3), 2), 3, 4, 8, 9),
    layer("Conv2d, one axis only", partial(nn.Conv2d, 2, 3, (1, 3), padding=(0, 1)), 3, 2, 5, 6),
    layer("Conv2d, over 700 positions", partial(nn.Conv2d, 2, 3, 3, padding=1), 3, 2, 28, 27),
    layer("Conv2d, over 700 positions, groups 2", partial(nn.Conv2d, 4, 2, 3, padding=1, groups=2), 2, 4, 28, 27),
    layer("Conv2d, over 700 positions, depthwise", partial(nn.Conv2d, 2, 2, 3, padding=1, groups=2), 2, 2, 28, 27),
    layer("Conv2d, channels last", lambda: nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last), 3, 3, 7, 8),
]

NORMS = [
    layer("BatchNorm1d, 2-D", partial(nn.BatchNorm1d, 4), 5, 4),
    layer("BatchNorm1d, 3-D", partial(nn.BatchNorm1d, 4), 3, 4, 6),
    layer("BatchNorm2d", partial(nn.BatchNorm2d, 4), 3, 4, 5, 6),
    layer("BatchNorm3d", partial(nn.BatchNorm3d, 4), 3, 4, 2, 3, 3),
    layer("BatchNorm1d, not affine", partial(nn.BatchNorm1d, 4, affine=False), 5, 4),
    layer("BatchNorm2d, not affine", partial(nn.BatchNorm2d, 4, affine=False), 3, 4, 5, 6),
    layer("LayerNorm, 2-D", partial(nn.LayerNorm, 6), 4, 6),
    layer("LayerNorm, 3-D", partial(nn.LayerNorm, 6), 4, 3, 6),
    layer("LayerNorm over two axes", partial(nn.LayerNorm, (5, 6)), 4, 3, 5, 6),
    layer("LayerNorm over all axes", partial(nn.LayerNorm, (3, 5)), 4, 3, 5),
    layer("LayerNorm, no bias", partial(nn.LayerNorm, 6, bias=False), 4, 3, 6),
    layer("LayerNorm, not affine", partial(nn.LayerNorm, 6, elementwise_affine=False), 4, 3, 6),
    layer("RMSNorm", partial(nn.RMSNorm, 6), 4, 3, 6),
    layer("RMSNorm over two axes", partial(nn.RMSNorm, (3, 6)), 4, 3, 6),
    layer("GroupNorm", partial(nn.GroupNorm, 2, 6), 3, 6, 4, 5),
    layer("GroupNorm, one group", partial(nn.GroupNorm, 1, 6), 3, 6, 7),
    layer("GroupNorm, a group a channel", partial(nn.GroupNorm, 6, 6), 3, 6, 7),
    layer("GroupNorm, 2-D", partial(nn.GroupNorm, 2, 6), 3, 6),
    layer("GroupNorm, not affine", partial(nn.GroupNorm, 2, 6, affine=False), 3, 6, 5),
    layer("InstanceNorm1d, affine", partial(nn.InstanceNorm1d, 4, affine=True), 3, 4, 7),
    layer("InstanceNorm2d, affine", partial(nn.InstanceNorm2d, 4, affine=True), 3, 4, 5, 5),
    layer("InstanceNorm3d, affine", partial(nn.InstanceNorm3d, 4, affine=True), 3, 4, 2, 3, 3),
    layer("InstanceNorm2d, running statistics", partial(nn.InstanceNorm2d, 4, 1e-5, 0.1, True, True), 3, 4, 5, 5),
    layer("LocalResponseNorm", partial(nn.LocalResponseNorm, 2), 3, 4, 5, 5),
]

ACTIVATIONS = [
    layer("PReLU, one slope", partial(nn.PReLU), 4, 3, 5),
    layer("PReLU, a slope a channel", partial(nn.PReLU, 3), 4, 3, 5),
    chain("ReLU in place after Linear", (4, 5), partial(nn.Linear, 5, 6), partial(nn.ReLU, True)),
    chain("ReLU in place after Conv2d", (4, 2, 5, 5), partial(nn.Conv2d, 2, 3, 3), partial(nn.ReLU, True)),
    chain("ReLU in place after BatchNorm2d", (4, 2, 5, 5), partial(nn.BatchNorm2d, 2), partial(nn.ReLU, True)),
    chain("ReLU in place after LayerNorm", (4, 2, 5), partial(nn.LayerNorm, 5), partial(nn.ReLU, True)),
    chain("SiLU in place", (4, 5), partial(nn.Linear, 5, 5), partial(nn.SiLU, True), partial(nn.Linear, 5, 3)),
    chain("GLU", (4, 5), partial(nn.Linear, 5, 6), nn.GLU),
    chain("Dropout, off in eval mode", (4, 5), partial(nn.Linear, 5, 6), nn.Dropout, nn.AlphaDropout),
]

EMBEDDINGS = [
    lookup("Embedding", partial(nn.Embedding, 7, 3), ids(7, 4, 5)),
    lookup("Embedding, repeated ids", partial(nn.Embedding, 4, 3), ids(2, 4, 9)),
    lookup("Embedding, one id a sample", partial(nn.Embedding, 7, 3), ids(7, 6)),
    lookup("Embedding, 3-D ids", partial(nn.Embedding, 5, 3), ids(5, 4, 2, 3)),
    lookup("Embedding, int32 ids", partial(nn.Embedding, 7, 3), lambda: ids(7, 4, 5)().int()),
    lookup("Embedding, padding_idx", partial(nn.Embedding, 4, 3, padding_idx=1), ids(4, 4, 6)),
    lookup("Embedding, negative padding_idx", partial(nn.Embedding, 4, 3, padding_idx=-1), ids(4, 4, 6)),
    lookup("Embedding, sparse", partial(nn.Embedding, 7, 3, sparse=True), ids(7, 4, 5)),
    lookup("Embedding, scaled by frequency", partial(nn.Embedding, 4, 3, scale_grad_by_freq=True), ids(4, 4, 5)),
    lookup("Embedding, max_norm", partial(nn.Embedding, 4, 3, max_norm=0.5), ids(4, 4, 5)),
    lookup("EmbeddingBag, sum", partial(nn.EmbeddingBag, 6, 3, mode="sum"), ids(6, 4, 5)),
    lookup("EmbeddingBag, mean", partial(nn.EmbeddingBag, 6, 3, mode="mean"), ids(6, 4, 5)),
    lookup("EmbeddingBag, max", partial(nn.EmbeddingBag, 6, 3, mode="max"), ids(6, 4, 5)),
    lookup("EmbeddingBag, padding_idx", partial(nn.EmbeddingBag, 4, 3, padding_idx=0), ids(4, 4, 5)),
]

_attention = partial(nn.MultiheadAttention, 6, 2, batch_first=True)
_second = partial(nn.MultiheadAttention, 6, 2)
_added = {"add_bias_kv": True, "add_zero_attn": True}
_encoder = partial(nn.TransformerEncoderLayer, 6, 2, 8, activation="gelu")
_decoder = partial(nn.TransformerDecoderLayer, 6, 2, 8, activation="gelu", batch_first=True)
_transformer = partial(nn.Transformer, 6, 2, 1, 1, 8, activation="gelu", batch_first=True)


def _narrow() -> nn.Module:
    attend = _attention(kdim=4, vdim=3)
    return Applied(attend, lambda layer, x: layer(x, x[..., 2:], x[..., :3]))


ATTENTION = [
    layer("MultiheadAttention", lambda: itself(_attention), 3, 4, 6),
    layer("MultiheadAttention, no bias", lambda: itself(partial(_attention, bias=False)), 3, 4, 6),
    layer("MultiheadAttention, batch second", lambda: second(lambda: itself(_second)), 3, 4, 6),
    layer("MultiheadAttention, added keys", lambda: itself(partial(_attention, **_added)), 3, 4, 6),
    layer("MultiheadAttention, narrow keys and values", _narrow, 3, 4, 6),
    layer("TransformerEncoderLayer", partial(_encoder, batch_first=True), 3, 4, 6),
    layer("TransformerEncoderLayer, norm first", partial(_encoder, batch_first=True, norm_first=True), 3, 4, 6),
    layer("TransformerEncoderLayer, batch second", lambda: second(_encoder), 3, 4, 6),
    layer("TransformerDecoderLayer", lambda: Applied(_decoder(), lambda layer, x: layer(x, x.flip(1))), 3, 4, 6),
    layer("Transformer", lambda: Applied(_transformer(), lambda layer, x: layer(x, x.flip(1))), 3, 4, 6),
]

RECURRENT = [
    layer("RNN", partial(nn.RNN, 4, 3, batch_first=True), 3, 5, 4),
    layer("RNN, ReLU, no bias", partial(nn.RNN, 4, 3, nonlinearity="relu", bias=False, batch_first=True), 3, 5, 4),
    layer("RNN, two layers both ways", partial(nn.RNN, 4, 3, 2, batch_first=True, bidirectional=True), 3, 5, 4),
    layer("LSTM", partial(nn.LSTM, 4, 3, batch_first=True), 3, 5, 4),
    layer("LSTM, two layers both ways", partial(nn.LSTM, 4, 3, 2, batch_first=True, bidirectional=True), 3, 5, 4),
    layer("LSTM, projected", partial(nn.LSTM, 4, 3, proj_size=2, batch_first=True), 3, 5, 4),
    layer("LSTM, batch second", lambda: second(partial(nn.LSTM, 4, 3)), 3, 5, 4),
    layer("GRU", partial(nn.GRU, 4, 3, batch_first=True), 3, 5, 4),
    layer("GRU, two layers both ways", partial(nn.GRU, 4, 3, 2, batch_first=True, bidirectional=True), 3, 5, 4),
    layer("GRU, batch second", lambda: second(partial(nn.GRU, 4, 3)), 3, 5, 4),
    layer("RNNCell", lambda: unrolled(partial(nn.RNNCell, 4, 3)), 3, 5, 4),
    layer("LSTMCell", lambda: unrolled(partial(nn.LSTMCell, 4, 3)), 3, 5, 4),
    layer("GRUCell", lambda: unrolled(partial(nn.GRUCell, 4, 3)), 3, 5, 4),
]

LAYERS = [*LINEAR, *CONVOLUTIONS, *NORMS, *ACTIVATIONS, *EMBEDDINGS, *ATTENTION, *RECURRENT]
