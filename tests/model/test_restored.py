"""Whatever happens inside, the model is as it was found; a measurement of a batch that fails leaves nothing either."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import nn

import forgetless
from exactness import unchanged
from forgetless.measure.engine.tape import Tape
from forgetless.model.restored import untouched


def made() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Embedding(5, 4, max_norm=0.5), nn.Flatten(), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 2)
    )
    model[4].bias.requires_grad_(False)
    model[4].weight.grad = torch.ones_like(model[4].weight)
    return model.train()


TOKENS = torch.tensor([[0, 1], [2, 3], [4, 0]])


def disturb(model: nn.Module) -> None:
    assert not model.training
    model(TOKENS).square().sum().backward()
    model.train()
    model(TOKENS)  # moves the statistics, draws random numbers, renormalizes rows
    model.requires_grad_(True)


def test_what_a_model_does_inside_is_undone() -> None:
    model = made()
    with unchanged(model), untouched(model):
        disturb(model)


def test_also_after_an_exception() -> None:
    model = made()

    def fail() -> None:
        with untouched(model):
            disturb(model)
            raise RuntimeError("in the middle")

    with unchanged(model), pytest.raises(RuntimeError, match="in the middle"):
        fail()


def test_the_witness_sees_what_is_not_undone() -> None:
    model = made()
    with pytest.raises(AssertionError), unchanged(model):
        model(TOKENS)


def test_no_pass_stays_in_memory() -> None:
    """The graph holds the tape and the tape the graph: somebody must let go, or every batch is kept for good."""
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Linear(3, 1))
    gc.collect()
    gc.disable()
    try:
        forgetless.mas(model, torch.randn(4, 3), progress=False)
        assert not [each for each in gc.get_objects() if isinstance(each, Tape)]
    finally:
        gc.enable()


def test_autocast_keeps_no_copies_of_weights_that_a_measurement_made() -> None:
    model, x = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)), torch.randn(6, 4)
    with torch.autocast("cpu", torch.bfloat16):
        with untouched(model), torch.no_grad():
            model(x)
        assert torch.is_autocast_cache_enabled()
        value = model(x).float().square().sum()
    gradients = torch.autograd.grad(value, list(model.parameters()), allow_unused=True)
    assert all(gradient is not None for gradient in gradients)
