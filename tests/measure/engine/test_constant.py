"""An output of constant norm is told: its squared norm says nothing of the parameters before the normalization."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import forgetless


class Normalized(nn.Module):
    def __init__(self, p: float = 2.0) -> None:
        super().__init__()
        self.fc1, self.fc2, self.p = nn.Linear(4, 8), nn.Linear(8, 6), p

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(self.fc2(self.fc1(x).tanh()), p=self.p, dim=-1)


def mlp(*last: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), *last)


def trained(norm: nn.Module) -> nn.Module:
    with torch.no_grad():
        norm.weight.normal_(), norm.bias.normal_()  # type: ignore[operator, union-attr]
    return norm


CONSTANT: dict[str, Any] = {
    "normalized": (Normalized, "'fc1.weight'"),
    "layer norm": (lambda: mlp(nn.LayerNorm(8)), "'0.weight', '0.bias', '2.weight'"),
    "layer norm without affine": (lambda: mlp(nn.LayerNorm(8, elementwise_affine=False)), "'0.weight'"),
    "RMS norm": (lambda: mlp(nn.RMSNorm(8)), "'0.weight'"),
    "group norm": (lambda: mlp(nn.GroupNorm(1, 8)), "'0.weight'"),
}
OTHERS: dict[str, Any] = {
    "plain": mlp,
    "one output": lambda: mlp(nn.Linear(8, 1)),
    "normalized in another norm": lambda: Normalized(p=4.0),
    "layer norm inside": lambda: mlp(nn.LayerNorm(8), nn.Linear(8, 3)),
    "trained layer norm": lambda: mlp(trained(nn.LayerNorm(8))),
    "softmax": lambda: mlp(nn.Softmax(1)),
    "sigmoid": lambda: mlp(nn.Sigmoid()),
    "one layer": lambda: nn.Linear(4, 8),
}


def said(model: nn.Module, x: Tensor, **options: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        forgetless.mas(model, x, progress=False, **options)
    return [str(each.message) for each in found if "norm of this output is constant" in str(each.message)]


@pytest.mark.parametrize("samples", [1, 2, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("what", CONSTANT)
def test_it_is_told_with_what_works(what: str, dtype: torch.dtype, samples: int) -> None:
    torch.manual_seed(0)
    build, names = CONSTANT[what]
    found = said(build().to(dtype), torch.randn(samples, 4, dtype=dtype))
    assert len(found) == 1
    assert f"does not depend on {names}" in found[0]
    assert "before the normalization" in found[0]
    assert 'form="vector"' in found[0]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("what", OTHERS)
def test_other_networks_are_not_accused(what: str, seed: int) -> None:
    torch.manual_seed(seed)
    assert not said(OTHERS[what](), torch.randn(8, 4))


def test_what_it_recommends_is_not_accused() -> None:
    torch.manual_seed(0)
    model, x = Normalized(), torch.randn(8, 4)
    assert not said(model, x, form="vector")
    assert not said(model, x, forward=lambda m, x: m.fc2(m.fc1(x).tanh()))
