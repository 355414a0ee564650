"""`F.linear`: a matrix applied at every position of a sample. `g_n = Σ_t d_nt a_ntᵀ`."""

from __future__ import annotations

from torch import Tensor, nn

from forgetless.measure.kernels.parts.rule import Call, Operation, Rule, Samples
from forgetless.measure.kernels.parts.terms import Dense, Outer


def linear(samples: Samples, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Call | None:
    """Rule of `y = x Wᵀ + b` with x `[N, …, I]` (or N elsewhere before I), W `[O, I]`, b `[O]`."""
    if input.dim() < 2 or samples.axis >= input.dim() - 1 or not samples.fit(input) or weight.dim() != 2:
        return None

    def weight_term(d: Tensor, x: Tensor) -> Outer:
        return Outer(samples.rows(d, 1), samples.rows(x, 1), weight.shape)

    def bias_term(d: Tensor, x: Tensor) -> Dense:
        rows = samples.rows(d, 1)
        return Dense(rows[:, 0] if rows.shape[1] == 1 else rows.sum(1))  # a sum of one would be a copy

    return Call(
        input,
        (weight, bias),
        forward=nn.functional.linear,
        input_gradient=lambda d, x, w, b: d @ w.to(d.dtype),
        terms=(weight_term, bias_term),
    )


RULES: dict[Operation, Rule] = {nn.functional.linear: linear}
