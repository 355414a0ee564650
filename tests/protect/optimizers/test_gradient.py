"""The loss form by hooks: equal to a penalty in the loss, and a warning where it must diverge."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn, optim

from forgetless.measure.importance import Importance
from forgetless.protect.anchor import Anchor
from forgetless.protect.optimizers.gradient import stable_up_to
from warned import said


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)
        self.double()

    def loss(self, step: int) -> torch.Tensor:
        inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(step)).double()
        return (self.last(torch.tanh(self.first(inputs))) - 1).square().mean()


def importance(model: nn.Module) -> Importance:
    generator = torch.Generator().manual_seed(1)
    return Importance(
        {name: torch.rand(p.shape, generator=generator).double() for name, p in model.named_parameters()}, 1.0
    )


OPTIMIZERS = [
    (optim.SGD, {"momentum": 0.9}),
    (optim.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    (optim.SGD, {"maximize": True}),
    (optim.Adam, {}),
    (optim.AdamW, {}),
    (optim.AdamW, {"fused": True, "maximize": True}),
    (optim.RMSprop, {"momentum": 0.5}),
    (optim.Adafactor, {}),
    *([(optim.Muon, {})] if hasattr(optim, "Muon") else []),  # since torch 2.9
]


@pytest.mark.parametrize("closures", [False, True])
@pytest.mark.parametrize(("cls", "options"), OPTIMIZERS)
def test_it_trains_as_the_penalty_in_the_loss_does(cls, options, closures):
    ends = []
    for how in ("gradient", "loss"):
        model = Net()
        if cls.__name__ == "Muon":  # which takes matrices only
            for layer in (model.first, model.last):
                layer.bias.requires_grad_(False)
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = cls(parameters, lr=0.01, **options)
        anchor = Anchor(model, importance(model), strength=0.5)
        if how == "gradient":
            anchor.attach(optimizer, how="gradient")
        sign = -1 if options.get("maximize") else 1

        def closure(model=model, optimizer=optimizer, anchor=anchor, how=how, sign=sign):
            optimizer.zero_grad()
            loss = model.loss(0)
            (loss + sign * anchor.penalty() if how == "loss" else loss).backward()
            return loss

        for _ in range(20):
            if closures:
                assert isinstance(optimizer.step(closure), torch.Tensor)
            else:
                closure()
                optimizer.step()
        ends.append([p.detach() for p in model.parameters()])
    for mine, theirs in zip(*ends, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11)


def test_a_closure_given_by_name_is_wrapped_too():
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    Anchor(model, importance(model), strength=0.5).attach(optimizer, how="gradient")
    with torch.no_grad():
        model.first.weight += 1

    def closure():
        optimizer.zero_grad()
        loss = 0 * model.loss(0)
        loss.backward()
        return loss

    before = model.first.weight.detach().clone()
    optimizer.step(closure=closure)
    expected = before - 0.1 * importance(model).sums["first.weight"]
    torch.testing.assert_close(model.first.weight.detach(), expected)


def test_parameters_without_a_gradient_get_the_penaltys():
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    Anchor(model, importance(model), strength=0.5).attach(optimizer, how="gradient")
    model.last.bias.requires_grad_(False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    before = [p.detach().clone() for p in model.parameters()]
    optimizer.step()
    for (name, after), was in zip(model.named_parameters(), before, strict=True):
        step = 0 if name == "last.bias" else 0.1 * importance(model).sums[name]
        torch.testing.assert_close(after.detach(), was - step)


def test_sparse_gradients_become_dense():
    table = nn.Embedding(6, 2, sparse=True)
    anchor = Anchor(table, Importance({"weight": torch.ones(6, 2)}, 1.0), strength=0.5)
    optimizer = optim.SGD(table.parameters(), lr=0.1)
    anchor.attach(optimizer, how="gradient")
    with torch.no_grad():
        table.weight += 1
    before = table.weight.detach().clone()
    table(torch.tensor([1, 1, 4])).sum().backward()
    optimizer.step()
    gradient = torch.ones(6, 2)
    gradient[1] += 2
    gradient[4] += 1
    torch.testing.assert_close(table.weight.detach(), before - 0.1 * gradient)


def test_a_fused_optimizer_under_gradscaler_sees_the_penalty_at_the_gradients_scale():
    ends = []
    for scaled in (False, True):
        model = Net().float()
        optimizer = optim.Adam(model.parameters(), lr=0.01, fused=True)
        anchor = Anchor(model, importance(model), strength=0.5).attach(optimizer, how="gradient")
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, enabled=scaled)
        for _ in range(10):
            optimizer.zero_grad()
            inputs = torch.ones(2, 3)
            loss = (model.last(torch.tanh(model.first(inputs))) - 1).square().mean()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        anchor.detach()
        ends.append([p.detach() for p in model.parameters()])
    for plain, scaled in zip(*ends, strict=True):
        torch.testing.assert_close(plain, scaled, rtol=1e-4, atol=1e-6)


@settings(max_examples=15)
@given(
    lr=st.floats(1e-3, 1.0),
    momentum=st.sampled_from([0.0, 0.5, 0.9]),
    dampening=st.sampled_from([0.0, 0.4]),
    nesterov=st.booleans(),
)
def test_the_bound_is_where_sgd_starts_to_diverge(lr, momentum, dampening, nesterov):
    nesterov = nesterov and momentum > 0 and dampening == 0
    ends = {}
    for factor in (0.97, 1.03):
        theta = nn.Parameter(torch.ones(1, dtype=torch.float64))
        optimizer = optim.SGD([theta], lr=lr, momentum=momentum, dampening=dampening, nesterov=nesterov)
        curvature = factor * stable_up_to(optimizer.param_groups[0])
        for _ in range(800):
            theta.grad = curvature * theta.detach()
            optimizer.step()
        ends[factor] = abs(theta.item())
    assert ends[0.97] < 1
    assert not ends[1.03] <= 100  # or infinite, or NaN


def quadratic_end(strength: float, how: str, **options) -> float:
    theta = nn.Module()
    theta.w = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    optimizer = optim.SGD(theta.parameters(), lr=0.05, **options)
    Anchor(theta, Importance({"w": torch.tensor([0.0, 5.0]).double()}, 1.0), strength).attach(optimizer, how)
    for _ in range(600):
        theta.w.grad = torch.full_like(theta.w, 1e-3)
        optimizer.step()
    return float(theta.w.detach()[1].abs())  # the other weight is free


@pytest.mark.parametrize("options", [{"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}])
def test_it_warns_before_training_exactly_when_it_diverges(options):
    bound = 1.9 / (0.05 * 5.0) / (2.8 if options.get("nesterov") else 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert quadratic_end(0.97 * bound, "gradient", **options) < 1
        quadratic_end(1e8, "pull", **options)
    with pytest.warns(UserWarning, match="diverge") as caught:
        end = quadratic_end(1.05 * bound, "gradient", **options)
    assert not math.isfinite(end) or end > 1e3
    assert said(caught)[0] == (
        "with how='gradient' training will diverge: at this learning rate and momentum SGD is stable up to a strength "
        f"of {bound:.3g}, and this is {1.05 * bound:g}; how='pull' is stable at every strength."
    )


def test_a_warm_up_is_judged_by_the_rate_it_leads_to():
    model = Net()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    optim.lr_scheduler.LinearLR(optimizer, start_factor=1e-6)
    with pytest.warns(UserWarning, match="diverge"):
        Anchor(model, importance(model), strength=15.0).attach(optimizer, how="gradient")


def test_adam_has_no_bound():
    model = Net()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Anchor(model, importance(model), strength=1e8).attach(optim.Adam(model.parameters()), how="gradient")
