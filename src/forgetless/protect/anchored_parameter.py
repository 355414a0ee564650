"""`AnchoredParameter`: one parameter's anchor, and what of it meets the parameter today."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from forgetless.errors import ForgetlessError
from forgetless.model.sharding import is_sharded, local, sharded_like, sharding, whole
from forgetless.protect.coded import Coded, Values, read, stored

# Elements handled at a time: on a CPU so few that the temporaries stay in its cache.
_PIECE, _PIECE_ELSEWHERE = 1 << 17, 1 << 24

Index = tuple[slice, ...]


@dataclass(frozen=True, eq=False)
class AnchoredParameter:
    """θ* and Ω of one parameter, in the shape that it had when it was anchored.

    The parameter may have grown or shrunk on any axis since: what they have in common begins at index 0 of every axis,
    and the rest of the parameter is free.

    Attributes:
        name: the parameter's.
        weights: θ*, float32 or wider; in 16 bits where it is read from a file that has it so.
        importance: Ω ≥ 0, in the dtype of θ*, in bfloat16 or in 8 bits.
        carry: of 16-bit weights, what rounding has kept them from moving so far: the pull goes on from θ + carry, so
            that steps below half a unit in the last place add up; float32, None for wider weights.
    """

    name: str
    weights: Tensor
    importance: Values
    carry: Tensor | None = None

    @classmethod
    def at(
        cls,
        name: str,
        parameter: Tensor,
        importance: Tensor | None,
        earlier: AnchoredParameter | None,
        *,
        gamma: float = 1.0,
        compact: bool | str,
        target: Tensor | None = None,
    ) -> AnchoredParameter:
        """Anchor the present value of `parameter`, by `importance` and `gamma` times that of an `earlier` anchor.

        Args:
            name: the parameter's.
            parameter: θ.
            importance: of the parameter's shape, to be added; None for 0.
            earlier: its anchor so far; None if there was none.
            gamma: what is left of the earlier one's importance.
            compact: keep Ω in bfloat16, or "8bit".
            target: θ* itself, in place of a copy of the present value.

        Raises:
            ForgetlessError: 8 bits for a sharded parameter.
        """
        weights = parameter.detach()
        dtype = computed(weights)
        if compact == "8bit" and is_sharded(weights):
            raise ForgetlessError(
                f"{name!r} is sharded, and compact='8bit' is for whole parameters; compact=True keeps Ω in bfloat16."
            )
        total = torch.zeros_like(weights, dtype=dtype)
        if earlier is not None:
            shape = earlier.common(parameter)
            _corner(total, shape).copy_(read(_corner(earlier.importance, shape), dtype)).mul_(gamma)
        if importance is not None:
            total += sharded_like(importance, parameter).to(total)
        return cls(name, weights.to(dtype, copy=True) if target is None else target, stored(total, compact))

    def beside(self, parameter: Tensor) -> AnchoredParameter:
        """The same on the device of `parameter`, with a carry if that is in 16 bits; itself if it fits."""
        found, device = self, parameter.device
        if self.weights.device != device or self.importance.device != device:
            found = replace(found, weights=self.weights.to(device), importance=_moved(self.importance, device))
        narrow = parameter.dtype in (torch.bfloat16, torch.float16)
        if narrow != (self.carry is not None):
            zeros = torch.zeros_like(found.weights, dtype=computed(found.weights)) if narrow else None
            found = replace(found, carry=zeros)
        elif self.carry is not None and self.carry.device != device:
            found = replace(found, carry=self.carry.to(device))
        return found

    def sharded_like(self, parameter: Tensor) -> AnchoredParameter:
        """The same, cut into shards as `parameter` is.

        Raises:
            ForgetlessError: Ω is in 8 bits, and the parameter is sharded.
        """
        if isinstance(self.importance, Coded):
            if is_sharded(parameter):
                raise ForgetlessError(f"{self.name!r} is sharded, and its importance in 8 bits is of a whole one.")
            return self
        weights, importance = (sharded_like(tensor, parameter) for tensor in (self.weights, self.importance))
        carry = None if self.carry is None else sharded_like(self.carry, parameter)
        return replace(self, weights=weights, importance=importance, carry=carry)

    def common(self, parameter: Tensor) -> tuple[int, ...]:
        """The shape of the corner in common with `parameter`.

        Raises:
            ForgetlessError: another number of axes; only one of the two is sharded, or they are sharded differently.
        """
        if parameter.dim() != self.weights.dim():
            raise ForgetlessError(
                f"{self.name!r} has shape {tuple(parameter.shape)} and was anchored with "
                f"{tuple(self.weights.shape)}: it is not the same parameter."
            )
        if (ours := sharding(self.weights)) != sharding(parameter):
            how = "is sharded and its anchor is not" if ours is None else "is not sharded as its anchor is"
            raise ForgetlessError(
                f"{self.name!r} {how}: anchor the model as it is now, "
                "or save() the anchor as it was and load() it for this model."
            )
        if ours is not None and parameter.shape != self.weights.shape:
            raise ForgetlessError(f"{self.name!r} is sharded and has grown since it was anchored: anchor it again.")
        return tuple(map(min, parameter.shape, self.weights.shape))

    def meet(self, parameter: Tensor, *others: Tensor) -> tuple[Tensor, Tensor, Values, *tuple[Tensor, ...]]:
        """θ, θ*, Ω and `others` (of the parameter's shape) in the corner in common: views, of shards the local ones."""
        shape = self.common(parameter)
        tensors = (parameter, self.weights, *others)
        if sharding(parameter) is None:
            weights, target, *left = (_corner(tensor, shape) for tensor in tensors)
            return weights, target, _corner(self.importance, shape), *left
        weights, target, *left = (local(tensor) for tensor in tensors)
        return weights, target, self.here(), *left

    def here(self) -> Values:
        """What this process has of Ω."""
        return self.importance if isinstance(self.importance, Coded) else local(self.importance)

    def distance(self, parameter: Tensor, alike: bool = False) -> Tensor:
        """`Σ Ω (θ − θ*)²` as a differentiable scalar; `Σ (θ − θ*)²` if all weights count `alike`."""
        shape = self.common(parameter)
        dtype = computed(parameter, self.weights)
        square = (_corner(parameter, shape) - read(_corner(self.weights, shape), dtype)).square()
        total = (square if alike else read(_corner(self.importance, shape), dtype) * square).sum()
        return whole(total)


def pieces(shape: tuple[int, ...], device: torch.device) -> Iterator[Index]:
    """Indices that cover a tensor by whole rows, a few at a time, so that what is computed from it stays small."""
    if not shape:
        yield ()
        return
    size = _PIECE if device.type == "cpu" else _PIECE_ELSEWHERE
    rows = max(1, size // max(1, math.prod(shape[1:])))
    for start in range(0, shape[0], rows):
        yield (slice(start, min(start + rows, shape[0])),)


def collapsed(parts: Sequence[tuple[float, float, AnchoredParameter]]) -> AnchoredParameter:
    """One anchor for several: `Σ_k (λ_k Ω_k + u_k)(θ − θ_k)² = O (θ − a)² + constant`, for every θ.

    `O = Σ_k (λ_k Ω_k + u_k)` and `a = Σ_k (λ_k Ω_k + u_k) θ_k / O`; where O is 0, a is the first θ_k.

    Args:
        parts: the (λ_k, u_k, anchor) of one parameter, all of one shape.
    """
    first = parts[0][2]
    start = read(first.weights, computed(first.weights))
    total, shift = torch.zeros_like(start), torch.zeros_like(start)
    for strength, alike, anchored in parts:
        weighed = strength * _beside(anchored.importance, total) + alike
        total += weighed
        shift += weighed * (anchored.weights.to(total) - start)
    place = start + torch.where(total > 0, shift / total, 0.0)
    kept = first.importance
    return replace(
        first,
        weights=place,
        importance=Coded.of(total) if isinstance(kept, Coded) else total.to(kept.dtype),
        carry=None,
    )


def computed(*tensors: Tensor) -> torch.dtype:
    """The dtype in which they are computed with: float32 or wider."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def _moved(values: Values, device: torch.device) -> Values:
    return values.moved(device) if isinstance(values, Coded) else values.to(device)


def _beside(values: Values, tensor: Tensor) -> Tensor:
    return read(values, tensor.dtype).to(tensor.device)


def _corner(tensor: Any, shape: tuple[int, ...]) -> Any:
    return tensor if tensor.shape == shape else tensor[tuple(slice(size) for size in shape)]
