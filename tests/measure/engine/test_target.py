"""`Target`: what is differentiated by what."""

from __future__ import annotations

import torch
from torch import nn

from forgetless.measure.engine.target import Target


def test_some_of_the_parameters() -> None:
    model = nn.Linear(3, 2)
    target = Target(model, dict(model.named_parameters()), lambda module, batch: module(batch).square().sum(1), 2)
    some = target.only(["bias", "no such name"])
    assert list(some.parameters) == ["bias"]
    assert (some.module, some.power) == (model, 2)
    x = torch.randn(4, 3)
    torch.testing.assert_close(some.values(x), model(x).square().sum(1))
