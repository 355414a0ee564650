"""Passes: a batch in one backward pass and one sample at a time make the same sums, and leave no gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from forgetless.measure.engine.passes import accumulate, batched_sums, single_sums, wide
from forgetless.measure.engine.target import Target


def target(power: int) -> Target:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()

    def scalars(module: nn.Module, batch: Any) -> Tensor:
        values: Tensor = module(batch)
        return values.square().sum(1)

    return Target(model, dict(model.named_parameters()), scalars, power)


@pytest.mark.parametrize("power", [1, 2])
def test_both_ways_make_the_same_sums(power: int) -> None:
    found, x = target(power), torch.randn(5, 3).double()
    together, values, tape = batched_sums(found, x)
    apart, alone = single_sums(found, x)
    torch.testing.assert_close(together, apart)
    torch.testing.assert_close(values, alone)
    assert not tape.unruled
    assert all(parameter.grad is None for parameter in found.parameters.values())


def test_sums_are_added_in_place() -> None:
    found, x = target(1), torch.randn(5, 3).double()
    sums, _, _ = batched_sums(found, x[:2])
    memory = {name: total.data_ptr() for name, total in sums.items()}
    batched_sums(found, x[2:], sums)
    assert {name: total.data_ptr() for name, total in sums.items()} == memory
    torch.testing.assert_close(sums, single_sums(found, x)[0])


def test_half_precision_is_added_up_in_float32() -> None:
    into: dict[str, Tensor] = {}
    accumulate(into, {"a": torch.ones(2, dtype=torch.bfloat16)})
    accumulate(into, {"a": torch.full((2,), 2.0**-9, dtype=torch.bfloat16)})
    assert into["a"].tolist() == [1 + 2.0**-9] * 2
    assert wide(torch.zeros(1, dtype=torch.float64)) == torch.float64
