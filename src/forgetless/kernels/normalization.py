"""Batch norm with held statistics, layer norm, group norm: `y = γ x̂ + β`, so `∂γ_n = Σ_t d x̂` and `∂β_n = Σ_t d`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from forgetless.kernels.rule import Call, Operation, Rule
from forgetless.kernels.terms import Dense

_aten = torch.ops.aten


def _call(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    forward: Callable[..., Tensor],
    input_gradient: Callable[..., Tensor],
    normalized: Callable[[Tensor], Tensor],
    positions: list[int],
) -> Call:
    """A norm whose affine parameters are shared over the axes `positions` of the input."""

    def summed(values: Tensor) -> Dense:
        return Dense(values.sum(positions) if positions else values)

    return Call(
        input,
        (weight, bias),
        forward,
        input_gradient,
        terms=(lambda d, x: summed(d * normalized(x)), lambda d, x: summed(d)),
    )


def batch_norm(
    samples: int,
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
    """Rule of batch norm over x `[N, C, …]` with running statistics; the batch's own couple samples: no rule."""
    if training or running_mean is None or running_var is None or input.shape[0] != samples:
        return None
    shape = [1, -1] + [1] * (input.dim() - 2)
    mean, scale = running_mean.view(shape), (running_var + eps).rsqrt().view(shape)

    def forward(x: Tensor, w: Tensor | None, b: Tensor | None) -> Tensor:
        return torch.batch_norm(x, w, b, running_mean, running_var, False, momentum, eps, cudnn_enabled)

    def input_gradient(d: Tensor, x: Tensor, w: Tensor | None, b: Tensor | None) -> Tensor:
        return d * (scale if w is None else scale * w.view(shape)).to(d.dtype)

    def normalized(x: Tensor) -> Tensor:
        return (x - mean) * scale

    return _call(input, weight, bias, forward, input_gradient, normalized, list(range(2, input.dim())))


def layer_norm(
    samples: int,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Call | None:
    """Rule of layer norm over x `[N, …, *normalized_shape]`."""
    shape = list(normalized_shape)
    if input.shape[0] != samples or input.dim() <= len(shape):
        return None

    def statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return _aten.native_layer_norm(x, shape, None, None, eps)  # type: ignore[no-any-return]

    def forward(x: Tensor, w: Tensor | None, b: Tensor | None) -> Tensor:
        return torch.layer_norm(x, shape, w, b, eps)

    def input_gradient(d: Tensor, x: Tensor, w: Tensor | None, b: Tensor | None) -> Tensor:
        _, mean, rstd = statistics(x)
        mask = [True, False, False]
        gradients = _aten.native_layer_norm_backward(d, x, shape, mean, rstd, w, b, mask)
        return gradients[0]  # type: ignore[no-any-return]

    positions = list(range(1, input.dim() - len(shape)))
    return _call(input, weight, bias, forward, input_gradient, lambda x: statistics(x)[0], positions)


def group_norm(
    samples: int,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Call | None:
    """Rule of group norm over x `[N, C, …]`."""
    if input.shape[0] != samples or input.dim() < 2:
        return None
    channels, area = input.shape[1], math.prod(input.shape[2:])

    def statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = x.contiguous()
        return _aten.native_group_norm(x, None, None, samples, channels, area, num_groups, eps)  # type: ignore[no-any-return]

    def forward(x: Tensor, w: Tensor | None, b: Tensor | None) -> Tensor:
        return torch.group_norm(x, num_groups, w, b, eps, cudnn_enabled)

    def input_gradient(d: Tensor, x: Tensor, w: Tensor | None, b: Tensor | None) -> Tensor:
        _, mean, rstd = statistics(x)
        sizes, mask = (samples, channels, area, num_groups), [True, False, False]
        gradients = _aten.native_group_norm_backward(d.contiguous(), x.contiguous(), mean, rstd, w, *sizes, mask)
        return gradients[0]  # type: ignore[no-any-return]

    positions = list(range(2, input.dim()))
    return _call(input, weight, bias, forward, input_gradient, lambda x: statistics(x)[0], positions)


RULES: dict[Operation, Rule] = {
    torch.batch_norm: batch_norm,
    torch.layer_norm: layer_norm,
    torch.group_norm: group_norm,
}
