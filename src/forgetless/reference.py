"""The slow witness: every quantity again, one sample at a time, by plain autograd and nothing else.

Shares no code with the kernels or the engine. Use it to check a fast result, or to read what a quantity is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from forgetless import data as batching
from forgetless.importance import Importance
from forgetless.output import Forward, Output, Select
from forgetless.parameters import trainable


def mas(
    model: nn.Module,
    data: Any,
    *,
    output: Select = None,
    forward: Forward | None = None,
    exclude: str | Iterable[str] = (),
) -> Importance:
    """Global MAS by its definition: `Σ_n |∂‖F(x_n; θ)‖² / ∂θ|`, a forward and a backward pass per sample.

    Takes what `forgetless.mas` takes. The model must be in eval mode already, and sums are in the parameters' dtype.
    """
    parameters = trainable(model, exclude)
    function = Output(output, forward)
    sums = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    count = 0
    for batch in batching.batches(data, 1):
        for n in range(batching.size(batch)):
            norm = function.squared_norms(model, batching.rows(batch, n, n + 1)).sum()
            gradients = torch.autograd.grad(norm, list(parameters.values()), allow_unused=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    sums[name] += gradient.detach().abs()
            count += 1
    return Importance(sums, count, "mas")
