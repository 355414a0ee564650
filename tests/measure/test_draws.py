"""The signs that `output_curvature` draws: fair, independent, and each decided by its sample's number alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from forgetless.measure import draws, reference


@given(st.integers(-(2**70), 2**70), st.lists(st.integers(0, 10**12), min_size=1, max_size=5), st.integers(1, 6))
def test_each_is_plus_or_minus_one_by_the_number_of_its_sample_alone(seed: int, numbers: list[int], width: int) -> None:
    found = draws.signs(seed, torch.tensor(numbers), torch.empty(len(numbers), width))
    assert found.shape == (len(numbers), width)
    for row, n in zip(found.tolist(), numbers, strict=True):
        assert row == [-1.0 if reference._uniform(seed, n, o) < 0.5 else 1.0 for o in range(width)]
    alone = draws.signs(seed, torch.tensor(numbers[-1:]), torch.empty(1, width + 3))
    assert torch.equal(alone[0, :width], found[-1])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_they_have_the_type_of_what_they_are_multiplied_with(dtype: torch.dtype) -> None:
    found = draws.signs(0, torch.arange(3), torch.empty(3, 4, dtype=dtype))
    assert found.dtype == dtype
    assert torch.equal(found.abs(), torch.ones_like(found))


def test_they_are_fair_and_independent_and_leave_torchs_generator_alone() -> None:
    state = torch.get_rng_state()
    found = draws.signs(11, torch.arange(4000), torch.empty(4000, 5, dtype=torch.float64))
    assert torch.equal(torch.get_rng_state(), state)
    assert float(found.mean(0).abs().max()) < 4 / 4000**0.5
    assert float((torch.corrcoef(found.T) - torch.eye(5)).abs().max()) < 0.08
    assert float((found[1:] * found[:-1]).mean(0).abs().max()) < 4 / 4000**0.5  # nor do neighbors know of each other
    other = draws.signs(12, torch.arange(4000), torch.empty(4000, 5, dtype=torch.float64))
    assert float((found * other).mean().abs()) < 4 / 20000**0.5
