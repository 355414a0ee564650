"""The pull: after every step of an optimiser, its anchored weights go part of the way back, in closed form.

    θ ← (θ + s θ*) / (1 + s)

is finite for every strength and learning rate; `forgetless.forms` has the s of each optimiser. It neither reads nor
writes gradients, so accumulation, loss scaling and the number of processes make no difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from forgetless.errors import ForgetlessError
from forgetless.forms import Group, form_of, sgd

_LARGEST = 1e20  # of 2 λ r: it holds a weight to the last bit, and Ω times it is still finite in float32
_PIECE = {"cpu": 1 << 18}  # elements handled at a time, so that temporaries stay in the cache
_PIECE_ELSEWHERE = 1 << 24


class Hold(NamedTuple):
    """A parameter's anchor.

    Attributes:
        name: the parameter's.
        weights: θ*, float32 or wider.
        importance: Ω, of the same shape.
        shape: the corner that θ* and the parameter have in common; what has grown beyond it is free.
    """

    name: str
    weights: Tensor
    importance: Tensor
    shape: tuple[int, ...]

    def distance(self, parameter: Tensor) -> Tensor:
        """`Σ Ω (θ − θ*)²` as a differentiable scalar."""
        moved = corner(parameter, self.shape) - corner(self.weights, self.shape)
        return (corner(self.importance, self.shape) * moved.square()).sum()


class Pull:
    """The hook on one optimiser that moves its anchored parameters after every step.

    Attributes:
        optimizer: the optimiser it is attached to.
        holds: parameter → its anchor; parameters that are not in it move freely.
        strength: λ.
    """

    def __init__(self, optimizer: Optimizer, holds: dict[nn.Parameter, Hold], strength: float) -> None:
        """Hook into `optimizer`.

        Raises:
            ForgetlessError: an optimiser without a known form, or with settings that allow none.
        """
        self._form = form_of(optimizer)
        for group in optimizer.param_groups:
            if group.get("momentum", 0) >= 1:
                raise ForgetlessError(
                    f"a momentum of {group['momentum']} never forgets a gradient, so that no pull can balance it; "
                    "use one below 1."
                )
            if group.get("differentiable", False):
                raise ForgetlessError(
                    "the pull cannot be differentiated through, as differentiable=True asks; "
                    "add anchor.penalty() to the loss instead."
                )
        self.optimizer, self.holds, self.strength = optimizer, holds, strength
        self._handle = optimizer.register_step_post_hook(self)

    def remove(self) -> None:
        """Take the hook out of the optimiser."""
        self._handle.remove()

    def shares(self, optimizer: Optimizer) -> bool:
        """Whether `optimizer` is the one it is attached to, or holds an anchored parameter of that one too."""
        if optimizer is self.optimizer:
            return True
        ours = {parameter for parameter, _, _ in self._owned()}
        return any(parameter in ours for group in optimizer.param_groups for parameter in group["params"])

    @torch.no_grad()
    def __call__(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Move every anchored parameter of the optimiser, which calls this when its step is done."""
        # Under GradScaler a fused optimiser runs its step and skips inside it; nothing may move then.
        skipped = getattr(optimizer, "found_inf", None)
        for parameter, hold, group in self._owned():
            for part, share in self._shares(parameter, hold, group):
                weights, target = parameter[part], hold.weights[part]
                if skipped is not None:
                    share.mul_(1 - skipped.to(share.device))
                if weights.dtype == target.dtype:
                    weights.lerp_(target, share)
                else:
                    weights.copy_(weights.to(target.dtype).lerp_(target, share))

    @torch.no_grad()
    def held(self) -> dict[str, tuple[int, int]]:
        """Per anchored parameter, how many of its weights have s > 1 now, and how many there are.

        A parameter that the optimiser has not stepped yet counts as free.
        """
        counts = {}
        for parameter, hold, group in self._owned():
            stopped = sum(int((share > 0.5).sum()) for _, share in self._shares(parameter, hold, group))
            counts[hold.name] = (stopped, parameter.numel())
        return counts

    def _owned(self) -> Iterator[tuple[nn.Parameter, Hold, Group]]:
        # Looked up at every step: groups are added, and replaced by load_state_dict.
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                if parameter in self.holds:
                    yield parameter, self.holds[parameter], group

    def _shares(self, parameter: nn.Parameter, hold: Hold, group: Group) -> Iterator[tuple[tuple[slice, ...], Tensor]]:
        """`s / (1 + s)`, the way back that the pull goes, piece by piece."""
        state = self.optimizer.state.get(parameter, {})
        if not state and self._form is not sgd:
            return  # never stepped: it has not moved, and there is no D yet
        for part in _pieces(hold.shape, _PIECE.get(parameter.device.type, _PIECE_ELSEWHERE)):
            sliced = {
                key: value[part] if isinstance(value, Tensor) and value.shape == parameter.shape else value
                for key, value in state.items()
            }
            rate, denominator = self._form(group, sliced)
            rate = 2 * self.strength * rate
            if not isinstance(rate, Tensor):
                rate = min(rate, _LARGEST)
            share = hold.importance[part].to(hold.weights.dtype, copy=True).mul_(rate)
            yield part, share.div_(share + (1 if denominator is None else denominator))


def corner(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The part of `tensor` up to `shape` on every axis, as a view."""
    return tensor if tensor.shape == shape else tensor[tuple(slice(size) for size in shape)]


def _pieces(shape: tuple[int, ...], size: int) -> Iterator[tuple[slice, ...]]:
    """Indices that cover the corner `shape` of a tensor by whole rows, about `size` elements each."""
    if not shape:
        yield ()
        return
    rows = max(1, size // max(1, math.prod(shape[1:])))
    rest = tuple(slice(width) for width in shape[1:])
    for start in range(0, shape[0], rows):
        yield slice(start, min(start + rows, shape[0])), *rest
