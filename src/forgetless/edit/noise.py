"""How large the singular values of pure noise are: what Donoho and Gavish's threshold is made of.

Gavish, Donoho, "The Optimal Hard Threshold for Singular Values is 4/√3", IEEE Trans. Inf. Theory 2014, arXiv 1305.5870.
The matrix is [long, short], β = short/long ≤ 1, and its noise has standard deviation σ per entry.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

_POINTS = 4096


@cache
def median_of_noise(beta: float) -> float:
    """μ_β: the median singular value of noise with σ = 1, divided by √long.

    √ of the median of the Marchenko–Pastur law, whose density on [(1−√β)², (1+√β)²] is
    `√((λ₊−λ)(λ−λ₋)) / (2πβλ)`. With λ = 1 + β − 2√β cos φ the density in φ is smooth, and is integrated by Simpson's
    rule on 4,096 intervals; the error is below 1e-7.

    Args:
        beta: 0 < β ≤ 1.
    """
    root = math.sqrt(beta)
    phi = torch.linspace(0, math.pi, 2 * _POINTS + 1, dtype=torch.float64)
    value = 1 + beta - 2 * root * phi.cos()
    density = 2 * phi.sin().square() / (math.pi * value)  # √(…) dλ = 4β sin² φ dφ
    if beta == 1:
        density[0] = 2 / math.pi  # the limit of 2 sin² φ / (π (2 − 2 cos φ))
    pieces = density[:-1:2] + 4 * density[1::2] + density[2::2]
    below = torch.cat([torch.zeros(1, dtype=torch.float64), (pieces * math.pi / (6 * _POINTS)).cumsum(0)])
    half = int(torch.searchsorted(below, below[-1] / 2))
    share = float((below[-1] / 2 - below[half - 1]) / (below[half] - below[half - 1]))
    at = (half - 1 + share) * math.pi / _POINTS
    return math.sqrt(1 + beta - 2 * root * math.cos(at))


def known_noise_threshold(beta: float) -> float:
    """λ*(β) = √(2(β+1) + 8β / ((β+1) + √(β²+14β+1))): the threshold by σ √long, where σ is known; λ*(1) = 4/√3."""
    return math.sqrt(2 * (beta + 1) + 8 * beta / ((beta + 1) + math.sqrt(beta * beta + 14 * beta + 1)))


def threshold_by_median(beta: float) -> float:
    """ω(β) = λ*(β)/μ_β: the threshold by the median of the singular values, where σ is not known; ω(1) ≈ 2.8583."""
    return known_noise_threshold(beta) / median_of_noise(beta)


def rounding(block: Tensor, dtype: torch.dtype) -> Tensor:
    """Σ of the variance that rounding to `dtype` has given the numbers: `ulp(w)²/12` each, as if errors were uniform.

    Args:
        block: the numbers, as float32 or wider.
        dtype: what they are stored as.
    """
    exponent = torch.frexp(block).exponent
    ulp = torch.ldexp(torch.full_like(block, torch.finfo(dtype).eps / 2), exponent) * (block != 0)
    return ulp.double().square().sum() / 12
