"""`Move`: one parameter's way back to its anchor after a step, `θ ← (θ + s θ*) / (1 + s)`.

    s = r (2 λ Ω + w) / D

with r and D from the optimizer's form, the strength λ and the decay w towards θ*.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from forgetless.protect.anchored_parameter import computed, pieces
from forgetless.protect.coded import Values, read
from forgetless.protect.optimizers.response import Response

_LARGEST = 1e20  # of r · 2 λ and of r · w, and
_FIRMEST = 1e30  # of s · D: no weight moves then, and sums with D are still finite in float32


@dataclass(eq=False, slots=True)
class Move:
    """What one parameter's pull is computed from; all tensors have the shape of `weights`.

    Attributes:
        weights: θ, or the part of it that is anchored; moved in place.
        target: θ*.
        importance: Ω.
        strength: λ.
        l2sp: w.
        response: r and D.
        carry: of 16-bit weights, what rounding has kept them from moving so far, in float32; None for wider ones.
    """

    weights: Tensor
    target: Tensor
    importance: Values
    strength: float
    l2sp: float
    response: Response
    carry: Tensor | None = None

    @property
    def by_importance(self) -> float | Tensor:
        """`2 λ r`, what Ω is multiplied by."""
        return _limited(2 * self.strength * self.response.rate)

    @property
    def alike(self) -> float | Tensor:
        """`w r`, what every weight has besides."""
        return _limited(self.l2sp * self.response.rate)

    def operands(self) -> Iterator[Tensor]:
        """All tensors of the weights' shape, but for Ω."""
        yield from (self.weights, self.target)
        yield from (each for each in (self.response.second, self.response.mean) if each is not None)

    def apply(self, skipped: Tensor | None = None) -> None:
        """Move the weights, in torch's operations; temporaries are the size of a piece.

        Args:
            skipped: 1 where the optimizer's step did nothing, so that nothing may move; asked for on its device.
        """
        for part, share in self.shares():
            weights, target = self.weights[part], read(self.target[part], share.dtype)
            if skipped is not None:
                share.masked_fill_(skipped.to(share) > 0, 0)  # not by a product: before the first step D may be NaN
            if (reach := self.response.reach) is not None:
                share.mul_((reach / (share * (target - weights)).abs()).nan_to_num_(1.0).clamp_(max=1.0))
            if weights.dtype == target.dtype:
                weights.lerp_(target, share)
                continue
            wide = weights.to(target.dtype)
            if self.carry is not None:
                wide.add_(self.carry[part])
            weights.copy_(wide.lerp_(target, share))
            if self.carry is not None:
                self.carry[part].copy_(wide.sub_(weights))

    def shares(self) -> Iterator[tuple[tuple[slice, ...], Tensor]]:
        """`s / (1 + s)`, the part of the way back that a weight goes, piece by piece."""
        for part, firm, divisor in self._parts():
            yield part, firm.div_(firm + 1 if divisor is None else divisor.add_(firm))

    def ratios(self) -> Iterator[Tensor]:
        """s, piece by piece."""
        for _, firm, divisor in self._parts():
            yield firm if divisor is None else firm.div_(divisor)

    def distances(self) -> Iterator[Tensor]:
        """`|θ − θ*|`, in the same pieces."""
        for part in pieces(tuple(self.weights.shape), self.weights.device):
            target = read(self.target[part], computed(self.weights, self.target))
            gap = self.weights[part].to(target.dtype) - target
            yield (gap if self.carry is None else gap.add_(self.carry[part])).abs_()

    def _parts(self) -> Iterator[tuple[tuple[slice, ...], Tensor, Tensor | None]]:
        """`s · D` and D (None for 1) of each piece; where Ω and D are 0 the weight is free."""
        dtype = computed(self.weights, self.target)
        for part in pieces(tuple(self.weights.shape), self.weights.device):
            firm = read(self.importance[part], dtype) * self.by_importance
            if self.l2sp:
                firm.add_(self.alike)
            divisor = self.response.divisor(part)
            if divisor is not None:
                divisor = divisor.to(dtype).clamp_(min=torch.finfo(dtype).tiny)
            yield part, firm.clamp_(max=_FIRMEST), divisor


def _limited(rate: float | Tensor) -> float | Tensor:
    return rate.clamp(max=_LARGEST) if isinstance(rate, Tensor) else min(rate, _LARGEST)
