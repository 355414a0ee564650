"""One parameter's way back, as it is computed on a device that may not be asked whether the step was skipped."""

from __future__ import annotations

import pytest
import torch
from torch import nn, optim

from forgetless.protect.optimizers import forms
from forgetless.protect.optimizers.families import torch_optim
from forgetless.protect.optimizers.move import Move


@pytest.mark.parametrize("cls", [optim.Adam, optim.AdamW, optim.NAdam, optim.RAdam])
def test_a_first_step_that_is_skipped_moves_nothing(cls, monkeypatch):
    monkeypatch.setattr(torch_optim, "number", lambda value: value)  # as it does for a tensor on a device
    parameter = nn.Parameter(torch.randn(5))
    optimizer = cls([parameter])
    parameter.grad = torch.zeros(5)
    optimizer.step()
    optimizer.state[parameter]["step"].zero_()  # as a fused step leaves it that GradScaler has skipped: v̂ is 0/0
    before = parameter.detach().clone()
    response = forms.known(optimizer).form(optimizer.param_groups[0], optimizer.state[parameter], parameter)
    move = Move(parameter.detach(), torch.zeros(5), torch.rand(5), 1.0, 0.0, response)
    move.apply(torch.tensor(1.0))
    assert torch.equal(parameter.detach(), before)
