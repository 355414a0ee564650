"""`Whole`: pieces that fit the memory, plans that are made when there is something to plan on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from forgetless.measure.engine.passes import single_sums
from forgetless.measure.engine.target import Quantity
from forgetless.measure.engine.whole import Whole
from forgetless.model.network import Network


def whole(**options: bool) -> Whole:
    torch.manual_seed(0)
    network = Network.of(nn.Linear(4, 2).double().eval(), ())
    quantity = Quantity(lambda module, batch: module(batch).square().flatten(1).sum(1))
    return Whole(network, dict(network.module.named_parameters()), quantity, **options)


def test_one_sample_makes_no_plan_and_two_do() -> None:
    found, sums = whole(), dict[str, Tensor]()
    x = torch.randn(7, 4).double()
    found.prepare(x[:1])
    assert found.plan is None
    found.measure(x[:1], 1, sums)
    found.prepare(x[1:])
    assert found.plan is not None
    found.measure(x[1:], 6, sums)
    torch.testing.assert_close(sums, single_sums(found.target, x)[0])


def test_a_form_is_planned_once_and_keeps_what_was_learned_of_it() -> None:
    found, sums = whole(), dict[str, Tensor]()
    x = torch.randn(6, 4).double()
    for _ in range(2):
        found.prepare(x)
        assert found.plan is not None
        if not found.plan.single.parameters:
            found._demote({"weight": "a reason"})
        assert found.plan.why == {"weight": "a reason"}
        found.measure(x, 6, sums)
        found.prepare(x[:, None].expand(6, 3, 4).sum(1, keepdim=True).expand(6, 1, 4))
        assert found.plan.why == {}
    torch.testing.assert_close(sums, {name: 2 * total for name, total in single_sums(found.target, x)[0].items()})


def test_one_sample_of_a_form_that_is_new_is_measured_alone() -> None:
    found = whole()
    found.prepare(torch.randn(6, 4).double())
    found.prepare(torch.randn(1, 1, 4).double())
    assert found.plan is None


def test_pieces_are_equal() -> None:
    found = whole()
    assert found.rows(1000, False) == 1
    found.prepare(torch.randn(2, 4).double())
    assert found.rows(1000, False) == 500
    assert found.rows(1000, True) <= 64
    assert found.rows(3, False) == 3


@pytest.mark.parametrize("planned", [False])
def test_without_a_plan_every_sample_is_alone(planned: bool) -> None:
    found = whole(planned=planned)
    found.prepare(torch.randn(5, 4).double())
    assert found.plan is None
