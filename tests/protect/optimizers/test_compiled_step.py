"""Anchors under a compiled optimizer step: the pull acts, or the watch says that it does not."""

from __future__ import annotations

import pytest
import torch
from torch import nn, optim

from forgetless.measure.importance import Importance
from forgetless.protect.anchor import Anchor


@pytest.mark.parametrize("compiled_first", [False, True])
@pytest.mark.parametrize("cls", [optim.SGD])
def test_a_compiled_step_pulls_as_a_plain_one(cls, compiled_first):
    ends = []
    for compiles in (False, True):
        torch._dynamo.reset()
        torch.manual_seed(0)
        model = nn.Linear(4, 3)
        optimizer = cls(model.parameters(), lr=torch.tensor(0.1) if cls is optim.AdamW else 0.1)
        anchor = Anchor(model, Importance({name: torch.ones_like(p) for name, p in model.named_parameters()}, 1.0), 1.0)
        step = optimizer.step
        if compiles and compiled_first:
            step = torch.compile(optimizer.step, backend="eager")
        anchor.attach(optimizer)
        if compiles and not compiled_first:
            step = torch.compile(optimizer.step, backend="eager")
        for number in range(4):
            optimizer.zero_grad()
            model(torch.ones(2, 4) * number).square().sum().backward()
            step()
        ends.append(model.weight.detach())
    torch.testing.assert_close(ends[1], ends[0])
