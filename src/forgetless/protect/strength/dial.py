"""What moves an anchor's strength while training goes on."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import nn
from torch.optim import Optimizer

from forgetless.model.sharding import is_sharded, whole
from forgetless.protect.anchored_parameter import AnchoredParameter, computed, pieces
from forgetless.protect.coded import read

log = logging.getLogger("forgetless")


@runtime_checkable
class Anchored(Protocol):
    """What a dial sees of an anchor."""

    strength: float

    def anchored(self) -> Mapping[nn.Parameter, AnchoredParameter]:
        """The anchored parameters that the model has now, each with its θ* and Ω."""

    def frozen_fraction(self) -> float:
        """The share of the anchored weights that the pull stops."""

    def strength_holding(self, share: float, steps: float, moved: float | None = None) -> float | None:
        """λ at which that share of the movement, or of the weights, is held by so many steps."""


class Dial:
    """A strength that chooses itself: `Anchor(model, importance, strength=dial)`.

    An anchor calls `remember` whenever θ* is set, `begin` when it is attached to an optimizer, `stepped` after each of
    that one's steps, when the pull has acted, and `end` when it is detached. A dial serves one anchor.

    Attributes:
        value: λ at first.
        needs_form: whether it needs an optimizer whose form the pull knows.
    """

    value: float = 1.0
    needs_form: bool = False

    def remember(self, model: nn.Module) -> None:
        """Take note of the model, whose current weights become θ*; refuse it before anything is changed."""

    def begin(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Training begins."""

    def stepped(self, anchor: Anchored) -> None:
        """A step is done: move `anchor.strength`, if it is time to."""
        raise NotImplementedError

    def end(self) -> None:
        """Training is over."""

    def state(self) -> dict[str, float]:
        """What an anchor saves of it, beside λ: numbers of 0 or more, by name."""
        return {}

    def restore(self, state: dict[str, float]) -> None:
        """Go on from what `state` gave; called after `remember`."""


@torch.no_grad()
def shrink(anchored: Mapping[nn.Parameter, AnchoredParameter], share: float) -> None:
    """Go back towards θ*: `θ ← θ* + share (θ − θ*)`, for what is anchored of every parameter."""
    for parameter, each in anchored.items():
        weights, target, *_ = each.meet(parameter)
        for part in pieces(tuple(weights.shape), weights.device):
            wide = read(target[part], computed(target))
            weights[part] = wide.lerp(weights[part].to(wide.dtype), share).to(weights.dtype)


@contextlib.contextmanager
def at_target(anchored: Mapping[nn.Parameter, AnchoredParameter]) -> Iterator[None]:
    """Inside, the parameters have the values that are anchored of them."""
    before = {parameter: parameter.detach().clone() for parameter in anchored}
    try:
        shrink(anchored, 0.0)
        yield
    finally:
        with torch.no_grad():
            for parameter, value in before.items():
                parameter.copy_(value)


@torch.no_grad()
def bound(anchored: Mapping[nn.Parameter, AnchoredParameter]) -> float:
    """`Σ Ω |θ − θ*|`: to first order, no less than the mean change of ‖F‖²."""
    total = 0.0
    for parameter, each in anchored.items():
        if is_sharded(each.weights):  # each process adds up its own shards
            total += float(whole((read(each.importance, each.weights.dtype) * (parameter - each.weights).abs()).sum()))
            continue
        weights, target, importance, *_ = each.meet(parameter)
        for part in pieces(tuple(weights.shape), weights.device):
            moved = (weights[part] - read(target[part], computed(weights, target))).abs_()
            total += float(torch.dot(moved.flatten(), read(importance[part], moved.dtype).flatten()))
    return total


def plasticity(anchor: Anchored) -> float | None:
    """`1 − anchor.frozen_fraction()`, the share of the anchored weights that can still move; None without a pull."""
    try:
        return 1 - float(anchor.frozen_fraction())
    except ValueError:
        return None
