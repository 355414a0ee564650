"""The plan: which parameters are measured in batches, by two samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from forgetless import ForgetlessError
from forgetless.measure.engine.plan import plan
from forgetless.measure.engine.target import Target


class By(nn.Module):
    """A layer, a matrix a head by einsum, and a function of both."""

    def __init__(self, function: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.lin, self.heads, self.function = nn.Linear(4, 4), nn.Parameter(torch.randn(2, 4, 4)), function

    def forward(self, x: Tensor) -> Tensor:
        """`[N, …]`."""
        return self.function(self, x)


def target(function: Callable[[Any, Tensor], Tensor]) -> Target:
    torch.manual_seed(0)
    model = By(function).double()
    return Target(model, dict(model.named_parameters()), lambda m, x: m(x).flatten(1).square().sum(1))


def test_what_no_rule_serves_is_measured_alone() -> None:
    found = plan(target(lambda m, x: torch.cdist(m.lin(x), m.heads[0])), torch.randn(3, 2, 4).double())
    assert list(found.single.parameters) == ["heads"]
    assert {*found.batched.parameters} == {"lin.weight", "lin.bias"}
    assert found.why == {"heads": "no rule for cdist"}
    assert found.sample_bytes > 0


def test_a_parameter_is_demoted_later() -> None:
    wanted = target(lambda m, x: m.lin(x))
    found = plan(wanted, torch.randn(3, 4).double()).demoted(wanted, {"lin.bias": "it is told so"})
    assert "lin.bias" in found.single.parameters
    assert "lin.bias" not in found.batched.parameters
    assert found.why["lin.bias"] == "it is told so"


def test_samples_that_influence_each_other_are_refused() -> None:
    with pytest.raises(ForgetlessError, match="depends on the other samples of its batch"):
        plan(target(lambda m, x: m.lin(x - x.mean(0))), torch.randn(3, 4).double())
