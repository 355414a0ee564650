"""Lion's form: the size of its steps, and that training with the pull ends at the penalized optimum."""

from __future__ import annotations

import jaxtyping
import pytest
import torch
from torch import nn, optim

from forgetless.protect.optimizers import forms
from forgetless.protect.optimizers.families.lion import lion
from quadratics import Quadratic


class Lion(optim.Optimizer):
    """The update of lion-pytorch 0.2 (github.com/lucidrains/lion-pytorch)."""

    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                mean = state.setdefault("exp_avg", torch.zeros_like(p))
                beta1, beta2 = group["betas"]
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_((beta1 * mean + (1 - beta1) * p.grad).sign(), alpha=-group["lr"])
                mean.mul_(beta2).add_(p.grad, alpha=1 - beta2)


def optimizers():
    yield Lion
    for package in ("lion_pytorch", "timm.optim"):
        try:
            yield __import__(package, fromlist=["Lion"]).Lion
        except ImportError:
            continue


every = pytest.mark.parametrize("cls", list(optimizers()), ids=lambda cls: cls.__module__)


@every
def test_it_is_recognized(cls):
    assert forms.known(cls([nn.Parameter(torch.zeros(2))], lr=0.1)).form is lion


@every
def test_it_ends_at_the_penalized_optimum_as_the_rate_falls(cls):
    jaxtyping.config.update("jaxtyping_disable", True)
    problem = Quadratic(free=False)
    problem.settle(cls(problem.parameters(), lr=0.05, betas=(0.9, 0.95)), 4000, decades=6)
    gap = (problem.rows.detach() - problem.optimum(0.0)).abs().max()
    jaxtyping.config.update("jaxtyping_disable", False)
    assert gap < 1e-6
