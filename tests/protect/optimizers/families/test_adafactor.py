"""Adafactor of torch and of transformers: D from the row and column means, clipping and relative steps included."""

from __future__ import annotations

import jaxtyping
import pytest
import torch
from torch import nn, optim

from forgetless.protect.optimizers import forms


@pytest.fixture(autouse=True)
def unchecked():
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def of_torch(parameters, **options):
    return optim.Adafactor(parameters, **{"lr": 1e-3, **options})


def of_transformers(parameters, **options):
    cls = pytest.importorskip("transformers").Adafactor
    return cls(parameters, **{"lr": 1e-3, "relative_step": False, "scale_parameter": False, **options})


def relative(parameters):
    return of_transformers(parameters, lr=None, relative_step=True, scale_parameter=True, warmup_init=True)


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4)])
@pytest.mark.parametrize(
    "make",
    [of_torch, of_transformers, lambda p: of_transformers(p, beta1=0.5), relative],
    ids=["torch", "transformers", "moment", "relative"],
)
def test_the_form_is_the_response_to_a_steady_gradient(make, shape):
    generator = torch.Generator().manual_seed(0)
    parameter = nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64))
    gradient = torch.randn(shape, generator=generator, dtype=torch.float64)
    optimizer = make([parameter])
    for _ in range(60):
        before = parameter.detach().clone()
        parameter.grad = gradient.clone()
        optimizer.step()
    response = forms.known(optimizer).form(optimizer.param_groups[0], optimizer.state[parameter], parameter)
    expected = -response.rate / response.divisor() * gradient
    # torch's rate is of the norm before the step; a first moment still holds some of the earlier, other steps
    torch.testing.assert_close(parameter.detach() - before, expected, rtol=2e-2, atol=1e-12)
