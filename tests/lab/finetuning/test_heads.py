from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from forgetless import ForgetlessError
from forgetless.lab.finetuning.heads import NEW, OLD, Classifier
from forgetless.lab.finetuning.loaded import Kind, Loaded


class Net(nn.Module):
    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(3, 5)
        self.last = nn.ModuleDict({"fc": nn.Linear(5, 4, bias=bias)})

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last["fc"](self.body(x).tanh())
        return found


def loaded(network: nn.Module) -> Loaded:
    return Loaded("net", network, Kind.OTHER, lambda *_: None)


def test_the_model_in_two_parts_and_whole_again() -> None:
    network, x = Net(), torch.randn(6, 3)
    before = network(x)
    model = Classifier(loaded(network), same=False)
    model.take_out()
    assert torch.equal(model.backbone(x), network.body(x).tanh())
    assert torch.equal(model(x, OLD), before)
    model.check(x, before)
    assert model.grow(NEW, 7)
    assert model(x, NEW).shape == (6, 7)
    assert torch.equal(model(x, OLD), before)
    assert torch.equal(model.put_back()(x), model.heads[NEW](network.body(x).tanh()))
    old = model.old_head()
    assert old.keys() == {"last.fc.weight", "last.fc.bias"}
    assert (model.renamed("body.weight"), model.renamed("last.fc.bias")) == ("backbone.network.body.weight", None)
    assert "backbone.network.body.weight" in dict(model.named_parameters())


def test_one_head_for_the_same_classes() -> None:
    model = Classifier(loaded(Net()), same=True)
    model.take_out()
    assert not model.grow(NEW, 4)
    x = torch.randn(2, 3)
    assert torch.equal(model(x, OLD), model(x, NEW))
    assert (model.old_head(), model.renamed("last.fc.bias")) == ({}, "heads.old.bias")
    assert "heads.old.bias" in dict(model.named_parameters())


def test_a_head_without_a_bias_is_replaced_by_one_without() -> None:
    model = Classifier(loaded(Net(bias=False)), same=False)
    model.grow(NEW, 2)
    assert not model.has_bias
    assert [name for name, _ in model.heads[NEW].named_parameters()] == ["weight"]


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)), r"ends in LayerNorm \(1\)"),
        (nn.Linear(3, 4), r"ends in Linear \(the model itself\)"),
    ],
)
def test_a_model_that_ends_otherwise(network: nn.Module, words: str) -> None:
    with pytest.raises(ForgetlessError, match=words):
        Classifier(loaded(network), same=False)


def test_something_after_the_last_layer_is_seen() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.ReLU())
    model, x = Classifier(loaded(network), same=False), torch.randn(6, 3)
    expected = network(x)
    model.take_out()
    with pytest.raises(ForgetlessError, match="what follows the layer '1'"):
        model.check(x, expected)
