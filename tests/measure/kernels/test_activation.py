"""The rule of PReLU: one slope, or one per channel."""

from __future__ import annotations

import pytest
import torch

from forgetless.measure.kernels import Samples
from forgetless.measure.kernels.activation import prelu
from rules import off


@pytest.mark.parametrize("samples", [Samples(3), Samples(2, 0, of=torch.tensor([1, 0, 1]))], ids=str)
@pytest.mark.parametrize("slopes", [1, 4])
def test_slopes(slopes: int, samples: Samples) -> None:
    torch.manual_seed(0)
    assert off(prelu, samples, torch.randn(3, 4, 5).double(), torch.rand(slopes).double()) < 1e-13


def test_samples_elsewhere_are_left() -> None:
    assert prelu(Samples(3, 1), torch.randn(5, 3), torch.rand(1)) is None
