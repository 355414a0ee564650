"""A penalty in the loss under gradient accumulation: told where it acts more strongly than asked for, only there."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn, optim

from forgetless import Anchor
from forgetless.measure.importance import Importance


def begun() -> tuple[nn.Linear, Anchor, optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    ones = Importance({name: torch.ones_like(p) for name, p in model.named_parameters()}, 1.0)
    anchor = Anchor(model, ones, 0.5)
    with torch.no_grad():
        model.weight += 1
    return model, anchor, optim.SGD(model.parameters(), lr=0.01)


def loss(model: nn.Module, anchor: Anchor) -> torch.Tensor:
    return model(torch.ones(4, 3)).square().mean() + anchor.penalty()


def test_a_penalty_in_every_one_of_four_losses_is_told_with_its_factor():
    model, anchor, optimizer = begun()

    def train() -> None:
        for _ in range(3):
            for _ in range(4):
                loss(model, anchor).backward()
            optimizer.step()
            optimizer.zero_grad()

    with pytest.warns(UserWarning, match=r"added to 4 losses .* acted 4 times as strongly as its strength") as caught:
        train()
    assert len(caught) == 1


@pytest.mark.parametrize("set_to_none", [True, False])
def test_what_is_right_is_not_warned_of(set_to_none):
    model, anchor, optimizer = begun()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for parts in (1, 3, 7):  # each loss is divided
            for _ in range(parts):
                (loss(model, anchor) / parts).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=set_to_none)
        for k in range(4):  # in one of the losses only
            (loss(model, anchor) if k == 0 else model(torch.ones(1, 3)).sum()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=set_to_none)
        for _ in range(2):  # two phases, cleared in between, as SAM has them
            loss(model, anchor).backward()
            optimizer.zero_grad(set_to_none=set_to_none)
        anchor.penalty()  # looked at, not differentiated
        with torch.no_grad():
            anchor.penalty()


def test_loss_scaling_is_not_mistaken_for_it():
    model, anchor, optimizer = begun()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(4):
            scaler.scale(loss(model, anchor) / 4).backward()
        scaler.step(optimizer)
        optimizer.zero_grad()
        scaler.scale(loss(model, anchor) / 4).backward()


def test_a_parameter_that_is_not_trained_hides_nothing():
    model, anchor, optimizer = begun()
    model.weight.requires_grad_(False)
    with torch.no_grad():
        model.bias += 1

    def train() -> None:
        for _ in range(2):
            for _ in range(2):
                loss(model, anchor).backward()
            optimizer.step()
            optimizer.zero_grad()

    with pytest.warns(UserWarning, match="acted 2 times as strongly"):
        train()


def test_sparse_gradients_are_left_alone():
    table = nn.Embedding(4, 2, sparse=True)
    anchor = Anchor(table, Importance({"weight": torch.ones(4, 2)}, 1.0), 0.5)
    for _ in range(2):
        table(torch.tensor([1, 2])).sum().backward()
        anchor.penalty().backward()
