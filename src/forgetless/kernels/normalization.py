"""Norms: `y = γ x̂ + β`, so `∂γ_n = Σ_t d x̂` and `∂β_n = Σ_t d`.

Batch norm with held statistics, layer norm, RMS norm, group norm, instance norm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from forgetless.kernels.rule import Call, Operation, Rule, Samples
from forgetless.kernels.terms import Dense, widened

_aten = torch.ops.aten


def _over_channels(samples: Samples, values: Tensor) -> Dense:
    """`[N·k, C, …]` summed over positions and the k rows of a sample: `[N, C]`."""
    summed = widened(values).flatten(2).sum(2) if values.dim() > 2 else widened(values)
    return Dense(summed if len(summed) == samples.count else summed.view(samples.count, -1, summed.shape[1]).sum(1))


def _channelwise(
    samples: Samples,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    forward: Callable[..., Tensor],
    input_gradient: Callable[..., Tensor],
    normalized: Callable[[Tensor], Tensor],
) -> Call:
    """A norm over x `[N, C, …]` with a weight and a bias per channel."""
    terms = (
        lambda d, x: _over_channels(samples, normalized(x).mul_(d)),  # in place: it is as large as the activations
        lambda d, x: _over_channels(samples, d),
    )
    return Call(input, (weight, bias), forward, input_gradient, terms)


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

    def normalized(x: Tensor) -> Tensor:
        return (x - mean).mul_(scale)

    return _channelwise(samples, input, weight, bias, forward, input_gradient, normalized)


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
    sizes = (input.shape[0], input.shape[1], math.prod(input.shape[2:]), num_groups)

    def forward(x: Tensor, w: Tensor | None, b: Tensor | None) -> Tensor:
        return torch.group_norm(x, num_groups, w, b, eps, cudnn_enabled)

    def statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return _aten.native_group_norm(x.contiguous(), None, None, *sizes, eps)  # type: ignore[no-any-return]

    def input_gradient(d: Tensor, x: Tensor, w: Tensor | None, b: Tensor | None) -> Tensor:
        _, mean, rstd = statistics(x)
        mask = [True, False, False]
        d, x = d.contiguous(), x.contiguous()
        gradients = _aten.native_group_norm_backward(d, x, mean, rstd, w, *sizes, mask)
        return gradients[0]  # type: ignore[no-any-return]

    def normalized(x: Tensor) -> Tensor:
        return statistics(x)[0]

    return _channelwise(samples, input, weight, bias, forward, input_gradient, normalized)


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


def _trailing(
    samples: Samples,
    input: Tensor,
    shape: list[int],
    parameters: tuple[Tensor | None, ...],
    forward: Callable[..., Tensor],
    input_gradient: Callable[..., Tensor],
    normalized: Callable[[Tensor], Tensor],
) -> Call | None:
    """A norm over the last axes of x `[N, …, *shape]`, with weights of that shape."""
    kept = len(shape)
    if samples.axis >= input.dim() - kept or not samples.fit(input):
        return None
    terms = (
        lambda d, x: Dense(samples.rows(widened(d * normalized(x)), kept).sum(1)),
        lambda d, x: Dense(samples.rows(widened(d), kept).sum(1)),
    )
    return Call(input, parameters, forward, input_gradient, terms[: len(parameters)])


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

    def forward(x: Tensor, w: Tensor | None, b: Tensor | None) -> Tensor:
        return torch.layer_norm(x, shape, w, b, eps)

    def statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return _aten.native_layer_norm(x, shape, None, None, eps)  # type: ignore[no-any-return]

    def input_gradient(d: Tensor, x: Tensor, w: Tensor | None, b: Tensor | None) -> Tensor:
        _, mean, rstd = statistics(x)
        mask = [True, False, False]
        gradients = _aten.native_layer_norm_backward(d, x, shape, mean, rstd, w, b, mask)
        return gradients[0]  # type: ignore[no-any-return]

    def normalized(x: Tensor) -> Tensor:
        return statistics(x)[0]

    return _trailing(samples, input, shape, (weight, bias), forward, input_gradient, normalized)


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

    def forward(x: Tensor, w: Tensor | None) -> Tensor:
        return torch.rms_norm(x, shape, w, eps)

    def inverse(x: Tensor) -> Tensor:
        floor = torch.finfo(x.dtype).eps if eps is None else eps
        return (x.square().mean(axes, keepdim=True) + floor).rsqrt()

    def input_gradient(d: Tensor, x: Tensor, w: Tensor | None) -> Tensor:
        scale = inverse(x)
        scaled = (d if w is None else d * w) * scale
        unit = x * scale
        return scaled - unit * (scaled * unit).mean(axes, keepdim=True)

    def normalized(x: Tensor) -> Tensor:
        return x * inverse(x)

    return _trailing(samples, input, shape, (weight,), forward, input_gradient, normalized)


RULES: dict[Operation, Rule] = {
    torch.batch_norm: batch_norm,
    torch.group_norm: group_norm,
    torch.instance_norm: instance_norm,
    torch.layer_norm: layer_norm,
    torch.rms_norm: rms_norm,
}
