"""Prodigy and D-Adaptation: their own rate d counts in the pull."""

from __future__ import annotations

import jaxtyping
import pytest
import torch
from torch import nn

from forgetless.errors import ForgetlessError
from forgetless.measure.importance import Importance
from forgetless.protect.anchor import Anchor
from forgetless.protect.optimizers import forms


@pytest.fixture(autouse=True)
def unchecked():
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize(("package", "name"), [("prodigyopt", "Prodigy"), ("dadaptation", "DAdaptAdam")])
def test_the_form_is_the_response_to_a_steady_gradient(package, name, corrected):
    cls = getattr(pytest.importorskip(package), name)
    parameter = nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = cls([parameter], lr=1.0, d0=1e-3, betas=(0.9, 0.99), use_bias_correction=corrected, growth_rate=1.0)
    gradient = torch.tensor([1.0, -20.0, 0.03], dtype=torch.float64)
    for _ in range(3000):
        before = parameter.detach().clone()
        parameter.grad = gradient.clone()
        optimizer.step()
    response = forms.known(optimizer).form(optimizer.param_groups[0], optimizer.state[parameter], parameter)
    expected = -response.rate / response.divisor() * gradient
    torch.testing.assert_close(parameter.detach() - before, expected, rtol=1e-6, atol=0)


def test_its_relatives_are_refused_by_name_and_may_take_the_gradient_form():
    package = pytest.importorskip("dadaptation")
    model = nn.Linear(2, 1)
    importance = Importance({"weight": torch.ones(1, 2)}, 1.0)
    optimizer = package.DAdaptSGD(model.parameters(), lr=1.0)
    with pytest.raises(ForgetlessError, match=r"^no pull for DAdaptSGD is known here; attach\(optimizer, how='grad"):
        Anchor(model, importance, 1.0).attach(optimizer, how="pull")
    Anchor(model, importance, 1.0).attach(optimizer, how="gradient")


class Prodigy(torch.optim.Optimizer):
    """Another one of that name, with a rate d."""

    def __init__(self, parameters) -> None:
        super().__init__(parameters, {"lr": 1.0, "d": 1e-4})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.sub_(group["lr"] * group["d"] * parameter.grad.sign())


def test_an_unknown_one_with_a_rate_d_is_said_to_be_unknown_and_pulled_by_that_rate():
    optimizer = Prodigy([nn.Parameter(torch.zeros(1))])
    found = forms.known(optimizer)
    assert "not known here" in found.caution
    assert found.form(optimizer.param_groups[0], {}, torch.zeros(1)).rate == 1e-4
