"""The rule of `F.linear`, wherever the samples are."""

from __future__ import annotations

import pytest
import torch

from forgetless.measure.kernels import Samples
from forgetless.measure.kernels.linear import linear
from rules import off

OF = torch.tensor([2, 0, 0, 1, 2, 2])


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize(
    ("samples", "shape"),
    [
        (Samples(3), (3, 4)),
        (Samples(3), (3, 5, 4)),
        (Samples(3), (6, 4)),
        (Samples(3, 0, inner=True), (6, 4)),
        (Samples(3, 1), (5, 3, 4)),
        (Samples(3, 0, of=OF), (6, 4)),
        (Samples(3, 1, of=OF), (2, 6, 4)),
        (Samples(4, 0, of=OF), (6, 4)),
    ],
    ids=str,
)
def test_rows_are_summed_within_their_sample(samples: Samples, shape: tuple[int, ...], power: int) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(2, 4).double(), torch.randn(2).double()
    assert off(linear, samples, torch.randn(shape).double(), weight, bias, power=power) < 1e-13


def test_what_it_does_not_serve() -> None:
    weight = torch.randn(2, 4)
    assert linear(Samples(3), torch.randn(4), weight) is None  # no axis for samples
    assert linear(Samples(3, 1), torch.randn(5, 4), weight) is None  # features where the samples should be
    assert linear(Samples(3), torch.randn(5, 4), weight) is None  # rows that are not so many for each
