"""Muon: the pull has the size of its step, and the warning says that the end is another."""

from __future__ import annotations

import pytest
import torch
from torch import nn, optim

from forgetless.measure.importance import Importance
from forgetless.protect.anchor import Anchor
from forgetless.protect.optimizers import forms

pytestmark = pytest.mark.skipif(not hasattr(optim, "Muon"), reason="this torch has no Muon")


@pytest.mark.parametrize("adjusted", [None, "match_rms_adamw"])
def test_the_form_has_the_size_of_the_step(adjusted):
    parameter = nn.Parameter(torch.zeros(6, 3))
    gradient = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    optimizer = optim.Muon([parameter], lr=0.1, weight_decay=0.0, adjust_lr_fn=adjusted)
    for _ in range(150):
        before = parameter.detach().clone()
        parameter.grad = gradient.clone()
        optimizer.step()
    response = forms.known(optimizer).form(optimizer.param_groups[0], optimizer.state[parameter], parameter)
    size = float((parameter.detach() - before).norm() / gradient.norm())
    assert float(response.rate) == pytest.approx(size, rel=0.3)  # its orthogonalization is a rough one


@pytest.mark.parametrize("strength", [0.3, 1e6])
def test_it_ends_where_its_form_says(strength):
    """`O ‖g‖ / √k + 2 λ Ω (θ − θ*) = 0` for the loss ½ ‖θ − c‖², up to how rough O is."""
    model = nn.Module()
    model.w = nn.Parameter(torch.zeros(4, 4))
    center = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    optimizer = optim.Muon(model.parameters(), lr=0.05, weight_decay=0.0)
    with pytest.warns(UserWarning, match="does not end at the optimum"):
        Anchor(model, Importance({"w": torch.ones(4, 4)}, 1.0), strength).attach(optimizer, how="pull")
    for step in range(600):
        optimizer.param_groups[0]["lr"] = 0.05 * 0.99**step
        model.w.grad = model.w.detach() - center
        optimizer.step()
    gradient = model.w.detach() - center
    u, _, v = torch.linalg.svd(gradient)
    left = u @ v * gradient.norm() / 2 + 2 * strength * model.w.detach()
    assert left.norm() < 0.35 * gradient.norm()
