"""`forgetless.local_mas`: local MAS against its definition, and against Hebb's rule written out."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import forgetless
from exactness import error, errors, unchanged, worst
from forgetless import Importance
from problems import PROBLEMS, Problem

Build = Callable[[], nn.Module]


def measured(model: nn.Module, data: Any, **options: Any) -> Importance:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return forgetless.local_mas(model, data, progress=False, **options)


def norm(kind: type[nn.Module], channels: int) -> nn.Module:
    """A batch norm that has seen data."""
    layer: Any = kind(channels)
    nn.init.normal_(layer.weight), nn.init.normal_(layer.bias)
    layer.running_mean.normal_(), layer.running_var.uniform_(0.5, 2)
    return layer


def reused() -> nn.Module:
    shared = nn.Linear(5, 5)
    return nn.Sequential(shared, nn.ReLU(), shared, nn.ReLU(), shared)


OF_MODULES: dict[str, tuple[Build, tuple[int, ...]]] = {
    "linear, with and without ReLU": (lambda: nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)), (7, 5)),
    "ReLU in place, dropout between": (
        lambda: nn.Sequential(nn.Linear(5, 6), nn.Dropout(), nn.ReLU(True), nn.Dropout(inplace=True), nn.Linear(6, 3)),
        (7, 5),
    ),
    "convolution, batch norm, ReLU": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), norm(nn.BatchNorm2d, 4), nn.ReLU(), nn.MaxPool2d(2)),
        (3, 2, 8, 8),
    ),
    "a batch norm of its own, with ReLU": (
        lambda: nn.Sequential(nn.AvgPool2d(2), norm(nn.BatchNorm2d, 2), nn.ReLU(True), nn.Conv2d(2, 3, 3)),
        (3, 2, 8, 8),
    ),
    "two batch norms": (
        lambda: nn.Sequential(nn.Linear(5, 4), norm(nn.BatchNorm1d, 4), norm(nn.BatchNorm1d, 4), nn.ReLU()),
        (7, 5),
    ),
    "another activation": (lambda: nn.Sequential(nn.Linear(5, 4), nn.GELU(), nn.Linear(4, 4), nn.Sigmoid()), (7, 5)),
    "flattened before its ReLU": (
        lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.ReLU(), nn.Linear(48, 2)),
        (3, 2, 6, 6),
    ),
    "group norm is a layer of its own": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)),
        (3, 2, 6, 6),
    ),
    "a layer of three uses": (reused, (7, 5)),
    "positions": (lambda: nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.LayerNorm(6), nn.Linear(6, 3)), (4, 3, 5)),
    "recurrent": (lambda: nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.GRU(4, 3, batch_first=True)), (4, 3, 5)),
}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 5e-6)], ids=str)
@pytest.mark.parametrize("name", OF_MODULES)
def test_equals_its_definition(name: str, dtype: torch.dtype, tolerance: float) -> None:
    build, shape = OF_MODULES[name]
    torch.manual_seed(0)
    model, x = build().to(dtype).eval(), torch.randn(shape, dtype=dtype)
    options = {"output": lambda found: found[0]} if name == "recurrent" else {}
    expected = forgetless.reference.local_mas(model, x)
    with unchanged(model):
        found = measured(model, x, **options)
    assert worst(found, expected) <= tolerance, errors(found, expected)
    assert found.estimator == "local-mas"


SOME = {"LeNet", "U-Net", "windowed attention", "GRU language model, samples second"}


@pytest.mark.parametrize("problem", [p for p in PROBLEMS if p.kind == "use" or p.name in SOME], ids=str)
def test_a_batch_gives_what_its_samples_give(problem: Problem) -> None:
    model, batch, options = problem.make(torch.float64)
    with unchanged(model):
        found = measured(model, batch, **options)
    expected = measured(model, batch, batch_size=1, **options)
    assert worst(found, expected) <= 1e-10, errors(found, expected)


def test_hebbs_rule() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    x = torch.randn(9, 5, dtype=torch.float64)
    y = model[:2](x).detach()
    omega = measured(model, x).mean()
    assert torch.allclose(omega["0.weight"], 2 * torch.einsum("nj,ni->ji", y, x.abs()) / 9)  # x is no firing rate
    assert torch.allclose(omega["0.bias"], 2 * y.mean(0))
    last = model(x).detach().abs()
    assert torch.allclose(omega["2.weight"], 2 * torch.einsum("nj,ni->ji", last, y) / 9)
    assert torch.allclose(omega["2.bias"], 2 * last.mean(0))


def test_convolutions_sum_over_positions_inside_a_sample() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(2, 3, 2), nn.ReLU()).double(), torch.randn(4, 2, 5, 5, dtype=torch.float64)
    y = model(x).detach().flatten(2)
    patches = functional.unfold(x, 2)
    expected = 2 * torch.einsum("not,nit->noi", y, patches).abs().sum(0).view(3, 2, 2, 2)
    assert error(measured(model, x).sums["0.weight"], expected) < 1e-12


class Residual(nn.Module):
    """What is added to a layer's result reads it first: no ReLU belongs to that layer."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.first, self.second, self.in_place = nn.Linear(4, 4), nn.Linear(4, 4), in_place

    def forward(self, x: Tensor) -> Tensor:
        out = self.second(torch.relu(self.first(x)))
        if self.in_place:
            out += x
            return functional.relu(out, inplace=True)
        return torch.relu(out + x)


@pytest.mark.parametrize("in_place", [False, True])
def test_a_residual_connection_ends_a_layer(in_place: bool) -> None:
    torch.manual_seed(0)
    model, x = Residual(in_place).double(), torch.randn(6, 4, dtype=torch.float64)
    y = torch.relu(model.first(x)).detach()
    expected = 2 * model.second(y).detach().abs().mean(0)
    assert torch.allclose(measured(model, x).mean()["second.bias"], expected)


def test_no_gradient_passes_from_layer_to_layer() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(5, 4)
    before = measured(model, x).sums["0.weight"]
    with torch.no_grad():
        model[2].weight.mul_(3)
    assert torch.equal(measured(model, x).sums["0.weight"], before)


def test_pools_over_any_split_and_not_with_mas() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).double(), torch.randn(7, 4).double()
    parts = measured(model, x[3:], into=measured(model, x[:3]))
    assert worst(parts, measured(model, x)) < 1e-12
    with pytest.raises(forgetless.ForgetlessError, match="'mas' cannot be merged with one by 'local-mas'"):
        measured(model, x, into=forgetless.mas(model, x, progress=False))
