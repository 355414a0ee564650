"""How far what was computed fast is from what was computed one sample at a time; a gradient in a few numbers."""

from __future__ import annotations

import torch
from torch import Tensor

_PROBED = 62  # elements of a gradient that its sketch has
_COMPARED = 1 << 20  # elements at a time: copies of a whole parameter would be the peak of a pass


def distance(found: Tensor, expected: Tensor) -> float:
    """The largest difference, of the largest expected value."""
    found, expected = (values if values.dim() else values.reshape(1) for values in (found, expected))
    rows = max(1, _COMPARED // max(1, expected[:1].numel()))
    pieces = list(zip(torch.split(found, rows), torch.split(expected, rows), strict=True))  # copies are small
    scale = max(float(right.abs().max()) for _, right in pieces)
    gap = max(float((left - right).abs().max()) for left, right in pieces)
    return gap if scale == 0 else gap / scale


def sketch(gradient: Tensor) -> Tensor:
    """A gradient in 64 numbers: `Σ|g|`, `Σg`, and elements spread evenly over it; float64.

    The sums are made in float32 or wider: torch adds up in pairs, whose rounding is far below what is compared.
    """
    flat = gradient.detach().reshape(-1)
    step = max(1, -(-flat.numel() // _PROBED))
    wide = torch.promote_types(flat.dtype, torch.float32)
    sums = torch.stack([torch.linalg.vector_norm(flat, 1, dtype=wide), flat.sum(dtype=wide)])
    return torch.cat([sums, flat[::step]]).double()
