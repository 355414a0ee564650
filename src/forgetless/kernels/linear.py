"""`F.linear`: a matrix applied at every position of a sample. `g_n = Σ_t d_nt a_ntᵀ`."""

from __future__ import annotations

from torch import Tensor, nn

from forgetless.kernels.rule import Call, Operation, Rule
from forgetless.kernels.terms import Dense, Outer


def linear(samples: int, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Call | None:
    """Rule of `y = x Wᵀ + b` with x `[N, …, I]`, W `[O, I]`, b `[O]`."""
    if input.dim() < 2 or input.shape[0] != samples or weight.dim() != 2:
        return None

    def weight_term(d: Tensor, x: Tensor) -> Outer:
        return Outer(_positions(d), _positions(x), weight.shape)

    def bias_term(d: Tensor, x: Tensor) -> Dense:
        return Dense(_positions(d).sum(1))

    return Call(
        input,
        (weight, bias),
        forward=nn.functional.linear,
        input_gradient=lambda d, x, w, b: d @ w,
        terms=(weight_term, bias_term),
    )


def _positions(values: Tensor) -> Tensor:
    """`[N, …, C]` as `[N, T, C]`; T = 1 where there is no axis between."""
    return values.reshape(values.shape[0], -1, values.shape[-1])


RULES: dict[Operation, Rule] = {nn.functional.linear: linear}
