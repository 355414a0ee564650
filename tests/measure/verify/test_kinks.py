from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from forgetless.measure.verify.kinks import on_a_kink, without


class Moody(nn.Module):
    """Adds to every sample what its batch's size says: alone another side of the kink for values near it."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(x + 1e-6 * (len(x) - 1))


@pytest.mark.parametrize(
    ("activation", "edge"),
    [
        (nn.ReLU(), 0.0),
        (nn.ReLU(inplace=True), 0.0),
        (nn.LeakyReLU(), 0.0),
        (nn.PReLU(), 0.0),
        (nn.ReLU6(), 6.0),
        (nn.Hardtanh(), -1.0),
        (nn.Hardswish(), 3.0),
        (nn.Hardsigmoid(), -3.0),
        (nn.Threshold(0.5, 0.0), 0.5),
    ],
    ids=str,
)
def test_finds_the_samples_on_a_kink(activation: nn.Module, edge: float) -> None:
    x = torch.full((4, 3), 1.5)
    x[2, 1] = edge - 1e-6
    assert on_a_kink(Moody(activation), x) == [2]


def test_a_pool_whose_largest_changes_is_a_kink() -> None:
    class Pool(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            tilt = torch.tensor([0.0, 1e-3]).repeat(2) * (len(x) - 1)
            return nn.functional.max_pool2d((x + tilt), 2)

    x = torch.tensor([3.0, 1.0, 0.0, 4.0]).repeat(3, 1, 2, 1)
    x[1, 0, :, :2] = 1.0
    assert on_a_kink(Pool(), x) == [1]


def test_smooth_networks_have_none() -> None:
    assert on_a_kink(Moody(nn.GELU()), torch.zeros(3, 2)) == []


@pytest.mark.parametrize("batch", [torch.arange(4), {"x": torch.arange(4), "scale": torch.tensor(2.0)}])
def test_without(batch: Any) -> None:
    left = without(batch, [1, 3])
    assert (left if isinstance(left, Tensor) else left["x"]).tolist() == [0, 2]
