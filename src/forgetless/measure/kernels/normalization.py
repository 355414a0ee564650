"""Norms: `y = γ x̂ + β`, so `∂γ_n = Σ_t d x̂` and `∂β_n = Σ_t d`.

Batch norm with held statistics, layer norm, RMS norm, group norm, instance norm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from forgetless.measure.kernels.parts.rule import Call, Operation, Rule, Samples
from forgetless.measure.kernels.parts.terms import Dense, portion, widened

_aten = torch.ops.aten
# Elements of `d x̂` at a time: on a CPU they stay in a core's cache and need no memory of their own.
_PIECE, _PIECE_ELSEWHERE = 1 << 18, 1 << 26


@dataclass(frozen=True)
class Statistics:
    """What a norm normalizes with, `x̂ = (x − μ) / σ`; both broadcast against x.

    Attributes:
        mean: μ; None where nothing is subtracted.
        inverse: 1/σ.
    """

    mean: Tensor | None
    inverse: Tensor

    def normalized(self, x: Tensor, rows: slice) -> Tensor:
        """Some rows of x̂."""
        mean, inverse = (s if s is None or len(s) == 1 else s[rows] for s in (self.mean, self.inverse))
        assert inverse is not None
        return x[rows] * inverse if mean is None else (x[rows] - mean).mul_(inverse)


Reduce = Callable[[Samples, Tensor], Tensor]  # values in the shape of x → their sums within each sample


def _scales(samples: Samples, d: Tensor, x: Tensor, statistics: Statistics, reduce: Reduce) -> Dense:
    """`Σ_t d x̂` of every sample, a few samples at a time."""
    each = len(x) // samples.count if samples.lead(x) else len(x)
    step = each * max(1, portion(x, _PIECE, _PIECE_ELSEWHERE) // max(1, x[:each].numel()))
    sums = []
    for start in range(0, len(x), step):
        rows = slice(start, min(start + step, len(x)))
        product = statistics.normalized(x, rows).mul_(d[rows])
        some = replace(samples, count=len(product) // each) if samples.lead(x) else samples
        sums.append(reduce(some, product))
    return Dense(torch.cat(sums))


def _over_channels(samples: Samples, values: Tensor) -> Tensor:
    """`[N·k, C, …]` summed over positions and the k rows of a sample: `[N, C]`."""
    summed = widened(values).flatten(2).sum(2) if values.dim() > 2 else widened(values)
    return summed if len(summed) == samples.count else summed.view(samples.count, -1, summed.shape[1]).sum(1)


def _norm(
    samples: Samples,
    input: Tensor,
    parameters: tuple[Tensor | None, ...],
    forward: Callable[..., Tensor],
    input_gradient: Callable[..., Tensor],
    statistics: Callable[[Tensor], Statistics],
    reduce: Reduce,
) -> Call:
    """A norm with a weight, and perhaps a bias."""
    terms = (
        lambda d, x: _scales(samples, d, x, statistics(x), reduce),
        lambda d, x: Dense(reduce(samples, d)),
    )
    return Call(input, parameters, forward, input_gradient, terms[: len(parameters)])


def batch_norm(
    samples: Samples,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Call | None:
    """Rule of batch norm with running statistics; the batch's own couple its samples: no rule."""
    if training or running_mean is None or running_var is None or input.dim() < 2 or not samples.lead(input):
        return None
    shape = [1, -1] + [1] * (input.dim() - 2)
    mean, scale = running_mean.view(shape), (running_var + eps).rsqrt().view(shape)

    def forward(x: Tensor, w: Tensor | None, b: Tensor | None) -> Tensor:
        return torch.batch_norm(x, w, b, running_mean, running_var, False, momentum, eps, cudnn_enabled)

    def input_gradient(d: Tensor, x: Tensor, w: Tensor | None, b: Tensor | None) -> Tensor:
        return d * (scale if w is None else scale * w.view(shape)).to(d.dtype)

    def statistics(x: Tensor) -> Statistics:
        return Statistics(mean, scale)

    return _norm(samples, input, (weight, bias), forward, input_gradient, statistics, _over_channels)


def group_norm(
    samples: Samples,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Call | None:
    """Rule of group norm over x `[N, C, …]`."""
    if input.dim() < 2 or not samples.lead(input):
        return None

    def sizes(x: Tensor) -> tuple[int, int, int, int]:  # of x as it is given: a term's has been padded
        return x.shape[0], x.shape[1], math.prod(x.shape[2:]), num_groups

    def forward(x: Tensor, w: Tensor | None, b: Tensor | None) -> Tensor:
        return torch.group_norm(x, num_groups, w, b, eps, cudnn_enabled)

    def moments(x: Tensor) -> tuple[Tensor, Tensor]:
        _, mean, rstd = _aten.native_group_norm(x.contiguous(), None, None, *sizes(x), eps)
        return mean, rstd

    def input_gradient(d: Tensor, x: Tensor, w: Tensor | None, b: Tensor | None) -> Tensor:
        mask = [True, False, False]
        gradients = _aten.native_group_norm_backward(d.contiguous(), x.contiguous(), *moments(x), w, *sizes(x), mask)
        return gradients[0]  # type: ignore[no-any-return]

    def statistics(x: Tensor) -> Statistics:
        shape = [*x.shape[:2], *[1] * (x.dim() - 2)]
        mean, inverse = (each.repeat_interleave(shape[1] // num_groups, 1).view(shape) for each in moments(x))
        return Statistics(mean, inverse)

    return _norm(samples, input, (weight, bias), forward, input_gradient, statistics, _over_channels)


def instance_norm(
    samples: Samples,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Call | None:
    """Rule of instance norm: group norm with a group per channel, or batch norm where statistics are held."""
    if not use_input_stats:
        held = (running_mean, running_var, False, momentum, eps, cudnn_enabled)
        return batch_norm(samples, input, weight, bias, *held)
    if running_mean is not None or input.dim() < 3:
        return None
    return group_norm(samples, input, input.shape[1], weight, bias, eps, cudnn_enabled)


def _trailing(samples: Samples, input: Tensor, kept: int) -> Reduce | None:
    """How `[N, …, *shape]`, the last `kept` axes being normalized, is summed to `[N, *shape]`; None where it cannot."""
    if samples.axis >= input.dim() - kept or not samples.fit(input):
        return None
    return lambda samples, values: samples.rows(widened(values), kept).sum(1)


def layer_norm(
    samples: Samples,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Call | None:
    """Rule of layer norm."""
    shape = list(normalized_shape)

    reduce = _trailing(samples, input, len(shape))
    if reduce is None:
        return None

    held: list[Tensor] = []  # what the forward pass has found: μ and 1/σ, a number a position

    def forward(x: Tensor, w: Tensor | None, b: Tensor | None) -> Tensor:
        if torch.is_autocast_enabled(x.device.type):  # which knows the public operation only, and widens x for it
            return torch.layer_norm(x, shape, w, b, eps)
        y, *held[:] = _aten.native_layer_norm(x, shape, w, b, eps)
        return y  # type: ignore[no-any-return]

    def fresh(x: Tensor) -> list[Tensor]:
        return list(_aten.native_layer_norm(widened(x), shape, None, None, eps)[1:])

    def moments(x: Tensor) -> list[Tensor]:
        return held or fresh(x)

    def input_gradient(d: Tensor, x: Tensor, w: Tensor | None, b: Tensor | None) -> Tensor:
        mask = [True, False, False]
        gradients = _aten.native_layer_norm_backward(d, x.to(d.dtype), shape, *moments(x), w, b, mask)
        return gradients[0]  # type: ignore[no-any-return]

    def statistics(x: Tensor) -> Statistics:
        # Rows that are not the samples in their order come padded: the numbers held are not of these rows.
        return Statistics(*(moments(x) if samples.of is None else fresh(x)))

    return _norm(samples, input, (weight, bias), forward, input_gradient, statistics, reduce)


def rms_norm(
    samples: Samples,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Call | None:
    """Rule of RMS norm: `x̂ = x / sqrt(mean(x²) + ε)`."""
    shape = list(normalized_shape)
    axes = list(range(-len(shape), 0))
    reduce = _trailing(samples, input, len(shape))
    if reduce is None:
        return None

    def forward(x: Tensor, w: Tensor | None) -> Tensor:
        return torch.rms_norm(x, shape, w, eps)

    def statistics(x: Tensor) -> Statistics:
        floor = torch.finfo(x.dtype).eps if eps is None else eps
        return Statistics(None, (x.square().mean(axes, keepdim=True) + floor).rsqrt())

    def input_gradient(d: Tensor, x: Tensor, w: Tensor | None) -> Tensor:
        scale = statistics(x).inverse
        scaled = (d if w is None else d * w) * scale
        unit = x * scale
        return scaled - unit * (scaled * unit).mean(axes, keepdim=True)

    return _norm(samples, input, (weight,), forward, input_gradient, statistics, reduce)


RULES: dict[Operation, Rule] = {
    torch.batch_norm: batch_norm,
    torch.group_norm: group_norm,
    torch.instance_norm: instance_norm,
    torch.layer_norm: layer_norm,
    torch.rms_norm: rms_norm,
}
