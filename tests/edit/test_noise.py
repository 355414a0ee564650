"""The constants of Donoho and Gavish against an independent integration."""

from __future__ import annotations

import math

import pytest
import torch

from forgetless.edit.noise import known_noise_threshold, median_of_noise, rounding, threshold_by_median

scipy = pytest.importorskip("scipy")
from scipy.integrate import quad  # noqa: E402
from scipy.optimize import brentq  # noqa: E402


@pytest.mark.parametrize("beta", [1e-3, 0.05, 0.1, 0.25, 0.5, 0.75, 0.99, 1.0])
def test_the_median_of_the_law(beta: float) -> None:
    low, high = (1 - math.sqrt(beta)) ** 2, (1 + math.sqrt(beta)) ** 2

    def density(value: float) -> float:
        return math.sqrt(max(0.0, (high - value) * (value - low))) / (2 * math.pi * beta * value)

    median = brentq(lambda at: quad(density, low, at, limit=400, epsabs=1e-11)[0] - 0.5, low + 1e-9, high)
    assert median_of_noise(beta) == pytest.approx(math.sqrt(median), rel=1e-7)


# β → ω, as printed (cut, not rounded, after four digits)
PRINTED = {0.05: 1.5193, 0.1: 1.6087, 0.25: 1.8368, 0.5: 2.1711, 0.75: 2.5014, 1.0: 2.8583}


@pytest.mark.parametrize(("beta", "omega"), PRINTED.items())
def test_the_printed_table(beta: float, omega: float) -> None:
    assert math.floor(threshold_by_median(beta) * 1e4) == round(omega * 1e4)
    near = 0.56 * beta**3 - 0.95 * beta**2 + 1.82 * beta + 1.43
    assert threshold_by_median(beta) == pytest.approx(near, abs=0.02)


def test_a_square_matrix_of_known_noise() -> None:
    assert known_noise_threshold(1.0) == pytest.approx(4 / math.sqrt(3))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_rounding_is_that_of_the_type(dtype: torch.dtype) -> None:
    exact = torch.randn(20_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    stored = exact.to(dtype)
    real = float((stored.double() - exact).square().sum())
    assert float(rounding(stored.double(), dtype)) == pytest.approx(real, rel=0.05)
    assert float(rounding(torch.zeros(5), dtype)) == 0
