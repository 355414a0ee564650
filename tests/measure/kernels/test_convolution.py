"""The rules of convolutions, by every way that their sums are taken."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from forgetless.measure.kernels import RULES, Samples
from rules import off


@pytest.mark.parametrize("of", [None, torch.tensor([1, 0, 1, 1])], ids=["in order", "mapped"])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("size", [(6,), (5, 4), (3, 3, 2)], ids=str)
def test_positions_are_summed_within_their_sample(size: tuple[int, ...], groups: int, of: torch.Tensor | None) -> None:
    torch.manual_seed(0)
    function = (functional.conv1d, functional.conv2d, functional.conv3d)[len(size) - 1]
    x = torch.randn(4, 4, *size).double()
    weight = torch.randn(4, 4 // groups, *[2] * len(size)).double()
    bias = torch.randn(4).double()
    samples = Samples(4 if of is None else 2, 0, of=of)
    assert off(RULES[function], samples, x, weight, bias, 1, 1, 1, groups) < 1e-12


def test_frames_of_a_sample_are_its_own() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(6, 2, 4, 4).double(), torch.randn(3, 2, 3, 3).double()
    assert off(RULES[functional.conv2d], Samples(3), x, weight) < 1e-12
