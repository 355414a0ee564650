"""Parameters against those anchored under their names: replaced, untied, newly tied and renamed ones are told of."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn, optim

from forgetless.measure.importance import Importance
from forgetless.protect.anchor import Anchor
from warned import said


class Net(nn.Module):
    def __init__(self, tied: bool = False, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(6, 4)
        self.body = nn.Linear(4, 4)
        self.head = nn.Linear(4, 6, bias=False)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, tokens):
        return self.head(self.body(self.embedding(tokens)))


def importance(model: nn.Module) -> Importance:
    return Importance({name: torch.ones_like(p) for name, p in model.named_parameters()}, 1.0)


def learn(model: nn.Module, optimizer: optim.Optimizer) -> None:
    for _ in range(5):
        optimizer.zero_grad()
        model(torch.arange(6)).square().mean().backward()
        optimizer.step()


def attach(model: nn.Module, anchor: Anchor) -> None:
    anchor.attach(optim.SGD(model.parameters(), lr=1e-3))


@pytest.mark.parametrize("rows", [4, 6, 9])
def test_a_new_head_under_the_old_name_is_free_and_told_of_once(rows):
    model = Net()
    anchor = Anchor(model, importance(model), 1e9)
    model.head = nn.Linear(4, rows, bias=False)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with pytest.warns(UserWarning, match="the model has changed") as caught:
        anchor.attach(optimizer)
    assert said(caught) == [
        "the model has changed since it was anchored: 'head.weight' are new tensors, unlike those anchored, and are "
        "free; consolidate() with an importance of the model as it is to protect them."
    ]
    assert {each.name for each in anchor.anchored().values()} == {"embedding.weight", "body.weight", "body.bias"}
    start = model.head.weight.detach().clone()
    learn(model, optimizer)
    assert (model.head.weight.detach() - start).abs().max() > 1e-3
    anchor.consolidate(importance(model))  # it is the model's own now
    assert anchor.importance["head.weight"].shape == (rows, 4)
    assert bool((anchor.importance["head.weight"] == 1).all())


@pytest.mark.filterwarnings("error")
def test_a_grown_a_loaded_and_a_trained_copy_are_the_same_parameter():
    model = Net()
    anchor = Anchor(model, importance(model), 1.0)
    grown = nn.Linear(4, 8, bias=False)
    with torch.no_grad():
        grown.weight[:6] = model.head.weight
        model.body.weight *= 1.1
    model.head = grown
    model.body = copy.deepcopy(model.body)
    attach(model, anchor)
    assert len(anchor.anchored()) == 4


@pytest.mark.filterwarnings("error")
def test_a_head_that_is_put_back_is_protected_again():
    model = Net()
    anchor = Anchor(model, importance(model), 1.0)
    old, model.head = model.head, nn.Linear(4, 6, bias=False)
    with pytest.warns(UserWarning, match=r"'head\.weight' are new tensors"):
        attach(model, anchor)
    anchor.detach()
    model.head = old
    attach(model, anchor)
    assert len(anchor.anchored()) == 4


def test_an_untied_head_is_told_to_be_free():
    model = Net(tied=True)
    anchor = Anchor(model, importance(model), 1.0)
    model.head.weight = nn.Parameter(model.head.weight.detach().clone())
    with pytest.warns(UserWarning, match=r"'head\.weight' are no longer the same tensor as an anchored parameter"):
        attach(model, anchor)


def test_a_newly_tied_head_is_told_to_have_lost_its_own():
    model = Net()
    anchor = Anchor(model, importance(model), 1.0)
    model.head.weight = model.embedding.weight
    with pytest.warns(UserWarning, match=r"'head\.weight' are the same tensor as another anchored parameter now"):
        attach(model, anchor)


def test_a_renamed_layer_is_told_to_be_free():
    model = Net()
    anchor = Anchor(model, importance(model), 1.0)
    model.renamed = model.body
    del model.body
    with pytest.warns(UserWarning, match=r"'renamed\.bias', 'renamed\.weight' are what anchored parameters of other"):
        attach(model, anchor)


def test_consolidate_tells_it_too():
    model = Net()
    anchor = Anchor(model, importance(model), 1.0)
    model.head = nn.Linear(4, 6, bias=False)
    with pytest.warns(UserWarning, match=r"'head\.weight' are new tensors"):
        anchor.consolidate(importance(model))
