"""`Coded`: an importance Ω in 8 bits a weight, on a logarithmic scale, for its values span many orders of magnitude.

Code 0 stands for 0, and code c > 0 for `top · 2^((c − 255) / 8)`: eight levels to an octave, 31.75 octaves below the
largest value of the parameter. The nearest level on that scale is taken: what is read for a value v of the smallest
level, `2^-31.75 · top`, or more is off by at most `2^(1/16) − 1` = 4.43 % of v, whatever its size; for a smaller one it
is 0 or that level, off by at most half of it. A linear scale would make 0 of all below 0.2 % of the largest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

_PER_OCTAVE, _LAST = 8, 255
RELATIVE = 2 ** (0.5 / _PER_OCTAVE) - 1  # how far off a value is at most, of itself,
ABSOLUTE = 2 ** ((1 - _LAST) / _PER_OCTAVE) / 2  # or of the largest where it is smaller than the smallest level
_PIECE = 1 << 17  # elements coded at a time


@dataclass(frozen=True, eq=False)
class Coded:
    """Values of 0 or more in 8 bits each.

    Attributes:
        codes: uint8, in the values' shape.
        levels: what the 256 codes stand for, float32.
    """

    codes: Tensor
    levels: Tensor

    @classmethod
    def of(cls, values: Tensor) -> Coded:
        """The codes of finite values of 0 or more, in their memory layout; temporaries are of a few rows."""
        top = largest(values)
        codes = torch.empty_like(values, dtype=torch.uint8)
        lines, coded_lines = (each if each.dim() else each.view(1) for each in (values.detach(), codes))
        rows = max(1, _PIECE // max(1, lines[:1].numel()))
        for some, coded in zip(torch.split(lines, rows), torch.split(coded_lines, rows), strict=True):
            share = some.double() / top if top else torch.zeros_like(some)
            steps = share.log2().mul_(_PER_OCTAVE).round_().add_(_LAST).clamp_(min=1)
            coded.copy_(steps.masked_fill_(share < ABSOLUTE, 0))
        return cls(codes, levels(top).to(values.device))

    @property
    def top(self) -> float:
        """The largest level."""
        return float(self.levels[_LAST])

    @property
    def shape(self) -> torch.Size:
        """The values' shape."""
        return self.codes.shape

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.codes.device

    def __getitem__(self, part: tuple[slice, ...]) -> Coded:
        return replace(self, codes=self.codes[part])

    def moved(self, device: torch.device) -> Coded:
        """The same on a device."""
        return Coded(self.codes.to(device), self.levels.to(device))

    def read(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The values; a new tensor."""
        return self.levels.to(dtype)[self.codes.int()]


def levels(top: float) -> Tensor:
    """What the 256 codes stand for where the largest value is `top`."""
    exponents = (torch.arange(_LAST + 1, dtype=torch.float64) - _LAST) / _PER_OCTAVE
    found = torch.exp2(exponents).mul_(top)
    found[0] = 0
    return found.float()


Values = Tensor | Coded


def read(values: Values, dtype: torch.dtype) -> Tensor:
    """The values in `dtype`; themselves where they are in it."""
    return values.read(dtype) if isinstance(values, Coded) else values.to(dtype)


def largest(values: Values) -> float:
    """The largest value, 0 of none."""
    if isinstance(values, Coded):
        return values.top
    return float(values.max()) if values.numel() else 0.0


def stored(values: Tensor, compact: bool | str) -> Values:
    """Values as an anchor keeps them: as they are, in bfloat16 (`compact=True`) or in 8 bits (`compact="8bit"`)."""
    if compact == "8bit":
        return Coded.of(values)
    return values.bfloat16() if compact else values
