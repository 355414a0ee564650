"""Tensors made of parameters: their terms are pulled back sample by sample."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from forgetless.measure.engine.derived import Derived, root_term
from forgetless.measure.kernels.parts.terms import Dense


@pytest.mark.parametrize(
    ("make", "rearranged"),
    [
        (lambda w: w.t(), True),
        (lambda w: w[1:], True),
        (lambda w: w.repeat(2, 1), True),
        (lambda w: w @ w.t(), False),
        (lambda w: w / w.norm(), False),
    ],
)
def test_the_gradients_of_the_root(make: Callable[[Tensor], Tensor], rearranged: bool) -> None:
    torch.manual_seed(0)
    root = torch.randn(3, 4).double().requires_grad_()
    uses = [Derived(make(root), {"w": root}, rearranged), Derived(root, {"w": root}, True)]
    gradients = [torch.randn(5, *use.value.shape).double() for use in uses]
    expected = torch.zeros(3, 4).double()
    for n in range(5):
        total = sum((use.value * each[n]).sum() for use, each in zip(uses, gradients, strict=True))
        expected += torch.autograd.grad(total, root, retain_graph=True)[0].abs()  # type: ignore[arg-type]
    for use, each in zip(uses, gradients, strict=True):
        use.terms.append(Dense(each))
    term = root_term(root, uses)
    assert term is not None
    torch.testing.assert_close(term.modulus_sum(1), expected)


def test_no_use_no_term() -> None:
    root = torch.zeros(2, requires_grad=True)
    assert root_term(root, [Derived(root, {"w": root}, True)]) is None
