"""`F.prelu`: `y = max(x, 0) + w min(x, 0)`, so `∂w_n = Σ_t d min(x, 0)`."""

from __future__ import annotations

import torch
from torch import Tensor

from forgetless.measure.kernels.parts.rule import Call, Operation, Rule, Samples
from forgetless.measure.kernels.parts.terms import Dense, widened


def prelu(samples: Samples, input: Tensor, weight: Tensor) -> Call | None:
    """Rule of PReLU over x `[N, C, …]` with one slope, or one per channel."""
    if not samples.lead(input):
        return None

    def term(d: Tensor, x: Tensor) -> Dense:
        slopes = widened(d * x.clamp(max=0))
        if weight.numel() == 1:
            return Dense(slopes.reshape(samples.count, -1).sum(1, keepdim=True).view(-1, *weight.shape))
        channels = slopes.reshape(samples.count, -1, weight.numel(), slopes[0, 0].numel())
        return Dense(channels.sum((1, 3)))

    def input_gradient(d: Tensor, x: Tensor, w: Tensor) -> Tensor:
        slope = w if w.numel() == 1 else w.view([1, -1] + [1] * (x.dim() - 2))
        return torch.where(x > 0, d, d * slope)

    return Call(input, (weight,), torch.prelu, input_gradient, (term,))


RULES: dict[Operation, Rule] = {torch.prelu: prelu}
