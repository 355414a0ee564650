"""`AnchoredParameter`: one parameter's anchor, and what of it meets the parameter today."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from forgetless.errors import ForgetlessError

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
        weights: θ*, float32 or wider.
        importance: Ω ≥ 0, in the dtype of θ* or in bfloat16.
    """

    name: str
    weights: Tensor
    importance: Tensor

    @classmethod
    def at(
        cls,
        name: str,
        parameter: Tensor,
        importance: Tensor | None,
        earlier: AnchoredParameter | None,
        *,
        gamma: float = 1.0,
        compact: bool,
    ) -> AnchoredParameter:
        """Hold to the present value of `parameter`, by `importance` and `gamma` times that of an `earlier` hold.

        Args:
            name: the parameter's.
            parameter: θ.
            importance: of the parameter's shape, to be added; None for 0.
            earlier: the hold so far; None if there was none.
            gamma: what is left of the earlier one's importance.
            compact: keep Ω in bfloat16.
        """
        weights = parameter.detach()
        weights = weights.to(torch.promote_types(weights.dtype, torch.float32), copy=True)
        total = torch.zeros_like(weights)
        if earlier is not None:
            shape = earlier.common(parameter)
            _corner(total, shape).copy_(_corner(earlier.importance, shape)).mul_(gamma)
        if importance is not None:
            total += _sharded_like(importance, parameter).to(total)
        return cls(name, weights, total.bfloat16() if compact else total)

    def to(self, device: torch.device) -> AnchoredParameter:
        """The same hold on `device`; itself where it is there already."""
        if self.weights.device == device and self.importance.device == device:
            return self
        return replace(self, weights=self.weights.to(device), importance=self.importance.to(device))

    def sharded_like(self, parameter: Tensor) -> AnchoredParameter:
        """A whole hold cut into shards as `parameter` is."""
        weights, importance = (_sharded_like(tensor, parameter) for tensor in (self.weights, self.importance))
        return replace(self, weights=weights, importance=importance)

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
        if (ours := _sharding(self.weights)) != _sharding(parameter):
            how = "is sharded and its anchor is not" if ours is None else "is not sharded as its anchor is"
            raise ForgetlessError(
                f"{self.name!r} {how}: anchor the model as it is now, "
                "or save() the anchor as it was and load() it for this model."
            )
        if ours is not None and parameter.shape != self.weights.shape:
            raise ForgetlessError(f"{self.name!r} is sharded and has grown since it was anchored: anchor it again.")
        return tuple(map(min, parameter.shape, self.weights.shape))

    def meet(self, parameter: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        """θ, θ*, Ω and `others` (of the parameter's shape) in the corner in common: views, of shards the local ones."""
        shape = self.common(parameter)
        tensors = (parameter, self.weights, self.importance, *others)
        if _sharding(parameter) is None:
            return tuple(_corner(tensor, shape) for tensor in tensors)
        return tuple(local(tensor) for tensor in tensors)

    def distance(self, parameter: Tensor, alike: bool = False) -> Tensor:
        """`Σ Ω (θ − θ*)²` as a differentiable scalar; `Σ (θ − θ*)²` if all weights count `alike`."""
        shape = self.common(parameter)
        square = (_corner(parameter, shape) - _corner(self.weights, shape)).square()
        total = (square if alike else _corner(self.importance, shape) * square).sum()
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


def whole(tensor: Tensor) -> Tensor:
    """All of a DTensor, for which every process must ask; any other tensor itself."""
    return tensor if _sharding(tensor) is None else tensor.full_tensor()  # type: ignore[attr-defined]


def local(tensor: Tensor) -> Tensor:
    """This process's shard of a DTensor; any other tensor itself."""
    return tensor if _sharding(tensor) is None else tensor.to_local()  # type: ignore[attr-defined]


def _sharded_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A whole `tensor`, the same in every process, cut into shards as `parameter` is; nothing is sent."""
    sharding = _sharding(parameter)
    if _sharding(tensor) is not None or sharding is None:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(parameter.device), *sharding, src_data_rank=None)


def _sharding(tensor: Tensor) -> tuple[Any, ...] | None:
    """Over what and how a DTensor is spread; None for any other tensor."""
    mesh = getattr(tensor, "device_mesh", None)
    return None if mesh is None else (mesh, getattr(tensor, "placements", None))


def collapsed(anchored_parameters: Sequence[tuple[float, float, AnchoredParameter]]) -> AnchoredParameter:
    """One hold for several: `Σ_k (λ_k Ω_k + u_k)(θ − θ_k)² = O (θ − a)² + constant`, for every θ.

    `O = Σ_k (λ_k Ω_k + u_k)` and `a = Σ_k (λ_k Ω_k + u_k) θ_k / O`; where O is 0, a is the first θ_k.

    Args:
        anchored_parameters: the (λ_k, u_k, hold) of one parameter, all of one shape.
    """
    first = anchored_parameters[0][2]
    total = torch.zeros_like(first.weights)
    shift = torch.zeros_like(first.weights)
    for strength, alike, anchored in anchored_parameters:
        weighed = strength * anchored.importance.to(total) + alike
        total += weighed
        shift += weighed * (anchored.weights.to(total) - first.weights)
    place = first.weights + torch.where(total > 0, shift / total, 0.0)
    return replace(first, weights=place, importance=total.to(first.importance.dtype))


def _corner(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    return tensor if tensor.shape == shape else tensor[tuple(slice(size) for size in shape)]
