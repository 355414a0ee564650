"""A rule of a kernel against autograd, with the gradient of every sample's rows alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from exactness import error
from forgetless.measure.engine.tape import _padded
from forgetless.measure.kernels import Rule, Samples


def owners(samples: Samples, length: int) -> Tensor:
    """The sample of each of `length` rows."""
    if samples.of is not None:
        return samples.of
    each = length // samples.count
    return (
        torch.arange(samples.count).repeat(each)
        if samples.inner
        else torch.arange(samples.count).repeat_interleave(each)
    )


def off(rule: Rule, samples: Samples, *arguments: Any, power: int = 1) -> float:
    """How far a rule's sums and its gradient of the input are from autograd's, at the worst."""
    call = rule(samples, *arguments)
    assert call is not None, "the rule does not serve this call"
    call = call if samples.of is None else _padded(call, samples)
    floats = call.input.is_floating_point()
    x = call.input.detach().clone().requires_grad_(floats)
    values = [None if p is None else p.detach().clone().requires_grad_() for p in call.parameters]
    y = call.forward(x, *values)
    d = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(0))
    wanted = [value for value in values if value is not None]
    totals = [torch.zeros_like(value) for value in wanted]
    numbers = owners(samples, y.shape[samples.axis]).view([-1 if a == samples.axis else 1 for a in range(y.dim())])
    for n in range(samples.count):
        gradients = torch.autograd.grad((y * d * (numbers == n)).sum(), wanted, retain_graph=True)
        for total, gradient in zip(totals, gradients, strict=True):
            total += gradient.abs() ** power
    plain = [None if value is None else value.detach() for value in values]
    terms = [term for term, value in zip(call.terms, values, strict=False) if value is not None]
    found = [term(d, x.detach()).modulus_sum(power) for term in terms]
    worst = max(error(one.view_as(other), other) for one, other in zip(found, totals, strict=True))
    if floats:
        (dx,) = torch.autograd.grad((y * d).sum(), x)
        worst = max(worst, error(call.input_gradient(d, x.detach(), *plain), dx))
    return worst
