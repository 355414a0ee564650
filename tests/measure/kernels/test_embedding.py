"""The rule of lookups: an id that a sample looks up twice is one gradient."""

from __future__ import annotations

import pytest
import torch

from forgetless.measure.kernels import Samples
from forgetless.measure.kernels.embedding import embedding, getitem
from rules import off


@pytest.mark.parametrize("padding", [-1, 2])
@pytest.mark.parametrize("samples", [Samples(3), Samples(3, 0, of=torch.tensor([2, 0, 0, 1, 2, 2]))], ids=str)
def test_ids_are_summed_within_their_sample(samples: Samples, padding: int) -> None:
    torch.manual_seed(0)
    ids = torch.randint(0, 4, (6, 3) if samples.of is not None else (3, 5))
    assert off(embedding, samples, torch.randn(4, 2).double(), ids, padding) < 1e-13


def test_what_is_no_lookup_is_left() -> None:
    table = torch.randn(4, 2)
    assert embedding(Samples(3), table, torch.zeros(3, dtype=torch.int64), scale_grad_by_freq=True) is None
    assert getitem(table, torch.tensor([True, False, True, True])) is NotImplemented
    assert getitem(table, torch.tensor([-1, 0])) is NotImplemented
