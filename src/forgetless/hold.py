"""`Hold`: one parameter's anchor, and what of it meets the parameter today."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from forgetless.errors import ForgetlessError

# Elements handled at a time: on a CPU so few that the temporaries stay in its cache.
_PIECE, _PIECE_ELSEWHERE = 1 << 18, 1 << 24

Index = tuple[slice, ...]


@dataclass(frozen=True, eq=False)
class Hold:
    """θ* and Ω of one parameter, in the shape that it had when it was anchored.

    The parameter may have grown or shrunk on any axis since: what they have in common begins at index 0 of every axis,
    and the rest of the parameter is free.

    Attributes:
        name: the parameter's.
        weights: θ*, float32 or wider.
        importance: Ω ≥ 0, in the dtype of θ* or in bfloat16.
    """

    name: str
    weights: Tensor
    importance: Tensor

    @classmethod
    def at(cls, name: str, parameter: Tensor, importance: Tensor | None, earlier: Hold | None, compact: bool) -> Hold:
        """Hold to the present value of `parameter`, by `importance` and that of an `earlier` hold together.

        Args:
            name: the parameter's.
            parameter: θ.
            importance: of the parameter's shape, to be added; None for 0.
            earlier: the hold so far; None if there was none.
            compact: keep Ω in bfloat16.
        """
        weights = parameter.detach()
        weights = weights.to(torch.promote_types(weights.dtype, torch.float32), copy=True)
        total = torch.zeros_like(weights)
        if earlier is not None:
            shape = earlier.common(parameter)
            _corner(total, shape).copy_(_corner(earlier.importance, shape))
        if importance is not None:
            total += importance.to(total)
        return cls(name, weights, total.bfloat16() if compact else total)

    def to(self, device: torch.device) -> Hold:
        """The same hold on `device`."""
        return replace(self, weights=self.weights.to(device), importance=self.importance.to(device))

    def common(self, parameter: Tensor) -> tuple[int, ...]:
        """The shape of the corner in common with `parameter`.

        Raises:
            ForgetlessError: another number of axes, or only one of the two is sharded.
        """
        if parameter.dim() != self.weights.dim():
            raise ForgetlessError(
                f"{self.name!r} has shape {tuple(parameter.shape)} and was anchored with "
                f"{tuple(self.weights.shape)}: it is not the same parameter."
            )
        return tuple(map(min, parameter.shape, self.weights.shape))

    def distance(self, parameter: Tensor) -> Tensor:
        """`Σ Ω (θ − θ*)²` as a differentiable scalar."""
        shape = self.common(parameter)
        moved = _corner(parameter, shape) - _corner(self.weights, shape)
        return (_corner(self.importance, shape) * moved.square()).sum()

    def pieces(self, parameter: Tensor) -> Iterator[Index]:
        """Indices that cover what is in common with `parameter` by whole rows, so that temporaries stay small."""
        shape = self.common(parameter)
        if not shape:
            yield ()
            return
        size = _PIECE if parameter.device.type == "cpu" else _PIECE_ELSEWHERE
        rows = max(1, size // max(1, math.prod(shape[1:])))
        rest = tuple(slice(width) for width in shape[1:])
        for start in range(0, shape[0], rows):
            yield slice(start, min(start + rows, shape[0])), *rest


def collapsed(holds: Sequence[tuple[float, Hold]]) -> Hold:
    """One hold for several: `Σ_k λ_k Ω_k (θ − θ_k)² = O (θ − a)² + constant`, for every θ.

    `O = Σ_k λ_k Ω_k` and `a = Σ_k λ_k Ω_k θ_k / O`; where all Ω_k are 0, a is the first θ_k.

    Args:
        holds: the (λ_k, hold) of one parameter, all of one shape.
    """
    first = holds[0][1]
    total = torch.zeros_like(first.weights)
    shift = torch.zeros_like(first.weights)
    for strength, hold in holds:
        weighed = strength * hold.importance.to(total)
        total += weighed
        shift += weighed * (hold.weights.to(total) - first.weights)
    place = first.weights + torch.where(total > 0, shift / total, 0.0)
    return replace(first, weights=place, importance=total.to(first.importance.dtype))


def _corner(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    return tensor if tensor.shape == shape else tensor[tuple(slice(size) for size in shape)]
