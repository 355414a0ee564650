"""Schedule-free optimizers: the pull moves z, and x, which is the result, ends at the penalized optimum."""

from __future__ import annotations

import jaxtyping
import pytest
import torch
from torch import nn

from forgetless.measure.importance import Importance
from forgetless.protect.anchor import Anchor
from forgetless.protect.optimizers import forms
from forgetless.protect.optimizers.families import schedule_free as family
from quadratics import Quadratic

package = pytest.importorskip("schedulefree")


@pytest.fixture(autouse=True)
def unchecked():
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def test_a_pull_of_the_parameter_alone_would_end_elsewhere(monkeypatch):
    monkeypatch.setattr(family, "sgd", lambda group, state, parameter: forms.Response(group["lr"]))
    problem = Quadratic(free=False)
    optimizer = package.SGDScheduleFree(problem.parameters(), lr=0.3, r=8.0)
    optimizer.train()
    problem.settle(optimizer, 1000, decades=0)
    optimizer.eval()
    assert not (problem.rows.detach() - problem.optimum(0.0)).abs().max() < 1e-2


def test_a_firm_pull_keeps_all_three_sequences_and_switching_changes_nothing():
    model = nn.Linear(3, 2)
    start = model.weight.detach().clone()
    optimizer = package.AdamWScheduleFree(model.parameters(), lr=0.1)
    Anchor(model, Importance({"weight": torch.ones(2, 3)}, 1.0), 1e12).attach(optimizer)
    for _ in range(5):
        optimizer.train()
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(4, 3)).square().sum().backward()
            optimizer.step()
        optimizer.eval()
        torch.testing.assert_close(model.weight.detach(), start, rtol=0, atol=1e-6)
    torch.testing.assert_close(optimizer.state[model.weight]["z"], start, rtol=0, atol=1e-6)


def test_the_wrapper_of_any_optimizer_is_pulled_at_z():
    problem = Quadratic(free=False)
    inner = torch.optim.SGD(problem.parameters(), lr=0.3)
    optimizer = package.ScheduleFreeWrapper(inner, momentum=0.9, r=8.0)
    Anchor(problem, Importance({"rows": problem.omega.expand(15, 6)}, 1.0), 0.5).attach(optimizer)
    optimizer.train()
    for _ in range(1500):
        problem.rows.grad = problem.gradient()
        optimizer.step()
    optimizer.eval()
    gap = problem.gradient() + problem.omega * (problem.rows.detach() - problem.start)
    assert gap.abs().max() < 1e-9


def test_others_of_the_package_are_refused_by_name():
    sentence = forms.known(package.SGDScheduleFreeClosure([nn.Parameter(torch.zeros(1))], lr=0.1))
    assert isinstance(sentence, str)
    assert sentence.startswith("no pull for SGDScheduleFreeClosure is known here, which trains at other weights")
