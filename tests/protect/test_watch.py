"""The watch: what it notices within 20 steps, once, and where it keeps silent."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn, optim

from forgetless.measure.importance import Importance
from forgetless.protect.anchor import Anchor
from warned import said


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 30), nn.Tanh(), nn.Linear(30, 2))


def importance(model: nn.Module) -> Importance:
    return Importance({name: torch.rand_like(p) for name, p in model.named_parameters()}, 1.0)


def backward(model: nn.Module) -> None:
    model(torch.randn(8, 4)).square().mean().backward()


def steps(model: nn.Module, optimizer: optim.Optimizer, number: int = 20) -> None:
    for _ in range(number):
        optimizer.zero_grad()
        backward(model)
        optimizer.step()


def attached(rate: float = 0.1) -> tuple[nn.Module, optim.Optimizer, Anchor]:
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    return model, optimizer, Anchor(model, importance(model), 1.0).attach(optimizer)


def test_an_optimizer_in_the_attached_ones_place_is_noticed_once():
    model, optimizer, _ = attached()
    steps(model, optimizer, 3)
    other = optim.Adam(model.parameters())
    with pytest.warns(UserWarning, match="is being trained") as caught:
        steps(model, other)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        steps(model, other, 60)
    assert said(caught) == [
        "'0.weight' is being trained, and not by steps of the SGD that the anchor is attached to: the anchor does not "
        "act; attach it to the optimizer that trains the model now."
    ]


def test_it_is_noticed_as_well_when_nobody_refers_to_anchor_and_optimizer_any_more():
    model, optimizer, anchor = attached()
    steps(model, optimizer, 3)
    del optimizer, anchor
    with pytest.warns(UserWarning, match="is being trained, and not by steps of the SGD"):
        steps(model, optim.Adam(model.parameters()))


def test_a_second_optimizer_beside_the_attached_one_is_noticed():
    model, optimizer, _ = attached()
    other = optim.Adam(model.parameters())

    def both() -> None:
        for _ in range(20):
            steps(model, optimizer, 1)
            steps(model, other, 1)

    with pytest.warns(UserWarning, match="was changed between two steps of the attached SGD, by something") as caught:
        both()
    assert len(said(caught)) == 1, said(caught)


def test_weights_overwritten_by_others_are_noticed_at_once():
    model, optimizer, _ = attached()
    steps(model, optimizer, 5)
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter)
    with pytest.warns(UserWarning, match="was changed between two steps of the attached SGD"):
        steps(model, optimizer, 2)


def test_a_replaced_parameter_and_an_optimizer_that_lost_them_are_noticed():
    model, optimizer, _ = attached()
    model[2] = nn.Linear(30, 2)
    with pytest.warns(UserWarning, match="'2.weight', '2.bias' became new tensors after the anchor was attached"):
        steps(model, optimizer)
    model, optimizer, _ = attached()
    optimizer.param_groups[0]["params"] = [nn.Parameter(torch.zeros(1))]
    with pytest.warns(UserWarning, match="no longer trains any anchored parameter"):
        steps(model, optimizer)


@pytest.mark.filterwarnings("error")
def test_it_keeps_silent_where_nothing_is_lost():
    model, optimizer, anchor = attached(rate=0.0)  # a warm-up that begins at 0
    steps(model, optimizer)
    optimizer.param_groups[0]["lr"] = 0.01
    for _ in range(20):  # accumulation
        for _ in range(12):
            backward(model)
        optimizer.step()
        optimizer.zero_grad()
    for _ in range(40):  # no gradient
        optimizer.zero_grad(set_to_none=False)
        optimizer.step()
    kept = copy.deepcopy(model.state_dict())
    steps(model, optimizer, 5)
    model.load_state_dict(kept)  # back to a good state
    steps(model, optimizer)
    anchor.consolidate(importance(model))
    steps(model, optimizer)
    for _ in range(20):  # an averaged copy is swapped in for an evaluation, and out again
        own = copy.deepcopy(model.state_dict())
        model.load_state_dict(kept)
        model.load_state_dict(own)
        steps(model, optimizer, 1)
    anchor.detach()
    steps(model, optim.Adam(model.parameters()))


@pytest.mark.filterwarnings("error")
def test_it_keeps_silent_when_a_scaler_skips_steps():
    model, optimizer, _ = attached(rate=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**4)
    for step in range(30):
        optimizer.zero_grad()
        loss = model(torch.randn(8, 4)).square().mean() * (torch.inf if step % 3 == 0 else 1)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_diverge_were_changed_by_nobody_else(value: float):
    model, optimizer, _ = attached()
    steps(model, optimizer, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, value)
        optimizer.step()
        steps(model, optimizer)
        for _ in range(30):  # as where a scaler leaves the steps out
            backward(model)


def test_a_second_anchor_on_the_same_optimizer_is_no_stranger():
    model, optimizer, _ = attached(rate=0.01)
    steps(model, optimizer, 3)
    other = Anchor(model, importance(model), 5.0).attach(optimizer)
    steps(model, optimizer)
    other.detach()
    steps(model, optimizer)
