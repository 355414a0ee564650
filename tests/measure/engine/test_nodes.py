"""The nodes hand over what passes, and leave the ordinary gradient as it is."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from forgetless.measure.engine.nodes import Slot, Spread, Use
from forgetless.measure.kernels import RULES, Samples
from forgetless.measure.kernels.parts.terms import Term


def test_a_slot_settles_once_after_all_uses() -> None:
    parameter, order = torch.ones(2, requires_grad=True), list[str]()
    slot = Slot.apply(parameter, lambda: order.append("settled"))
    copies = [Spread.apply(slot.detach(), lambda gradient: order.append("use"), slot) for _ in range(3)]
    sum(copy.sum() for copy in copies).backward()
    assert order == ["use"] * 3 + ["settled"]
    assert parameter.grad is None


def test_a_use_gives_its_terms_and_the_gradient_of_its_input() -> None:
    x, weight, bias = torch.randn(3, 4, requires_grad=True), torch.randn(2, 4, requires_grad=True), torch.randn(2)
    call = RULES[functional.linear](Samples(3), x, weight, bias)
    assert call is not None
    ledger: list[Term] = []
    y = Use.apply(call, [ledger, None], [weight.detach(), bias], x, Slot.apply(weight, lambda: None))
    upstream = torch.randn(3, 2)
    (dx,) = torch.autograd.grad((y * upstream).sum(), x)
    (expected,) = torch.autograd.grad((functional.linear(x, weight, bias) * upstream).sum(), x)
    torch.testing.assert_close(dx, expected)
    (term,) = ledger
    for n in range(3):
        torch.testing.assert_close(term.sample(n), torch.outer(upstream[n], x[n].detach()))


def test_a_view_made_inside_may_be_written_to_afterwards() -> None:
    x, weight = torch.randn(3, 4), torch.randn(2, 4, requires_grad=True)
    call = RULES[functional.linear](Samples(3), x, weight, None)
    assert call is not None
    y: Tensor = Use.apply(call, [[], None], [weight.detach(), None], x, Slot.apply(weight, lambda: None))
    assert y._base is None
    y.mul_(2).sum().backward()
