"""What the methods that hold an anchor share: they differ in what they measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from forgetless.learn.families.state import pack, unpack
from forgetless.learn.method import Method, Strength
from forgetless.learn.network import Network
from forgetless.learn.task import Task
from forgetless.measure.importance import Importance
from forgetless.model.parameters import trainable
from forgetless.protect.anchor import Anchor
from forgetless.protect.strength.hold_share import HoldShare


@dataclass
class Anchored(Method):
    """Learn a task under `λ Σ Ω (θ − θ*)²`, then add the task's Ω and move θ* to the current weights.

    The penalty is not in the loss: its closed-form proximal step (the pull) follows the optimizer's step, so that
    training cannot diverge under a large λ. Memory: θ* and Ω, however many tasks there are. A head that belongs to one
    task is not protected, because no later task trains it; a head that tasks share is protected like everything else.

    Attributes:
        strength: λ, or "auto".
    """

    automatic: ClassVar[bool] = True
    how: ClassVar[str] = "pull"  # what the anchor is attached as
    strength: Strength = 1.0
    _anchor: Anchor | None = field(default=None, init=False, repr=False)

    def measure(self, model: Network, task: Task) -> Importance:
        """Ω of the task that has just been learned."""
        raise NotImplementedError

    def begin(self, model: Network, task: Task, optimizer: Optimizer) -> None:
        """Attach the anchor: from now on every step is pulled towards θ*, by Ω."""
        anchor = self.anchor(model)
        if isinstance(self.strength, str) != is_automatic(anchor):  # it was changed from one kind to the other
            self._anchor = anchor = with_strength(model, anchor, self.strength)
        if not isinstance(self.strength, str):
            anchor.strength = self.strength
        anchor.attach(optimizer, self.how)

    def end(self, model: Network, task: Task) -> None:
        """Measure the task's Ω, add it, and move θ* to the current weights."""
        anchor = self.anchor(model)
        anchor.detach()
        anchor.consolidate(self.measure(model, task))

    def renew(self, model: Network, importance: Importance | None) -> None:
        """Put a new anchor at the present weights; with "auto" its λ is the one found last until it finds its own."""
        earlier = self.anchor(model)
        self._anchor = Anchor(model, importance, self.strength)
        if isinstance(self.strength, str) and is_automatic(earlier):
            self._anchor.strength = earlier.strength

    def anchors(self) -> tuple[Anchor, ...]:
        """The anchor, once there is one."""
        return () if self._anchor is None else (self._anchor,)

    def state(self) -> dict[str, Tensor]:
        """θ* and Ω."""
        return {} if self._anchor is None else pack({"anchor": self._anchor.state_dict()})

    def load_state(self, model: Network, tensors: dict[str, Tensor], tasks: Sequence[Task] = ()) -> None:
        """Take θ* and Ω back."""
        kept = unpack(tensors).get("anchor")
        if kept:
            self.anchor(model).load_state_dict(kept)

    def anchor(self, model: Network) -> Anchor:
        """The anchor; a new one protects nothing yet."""
        if self._anchor is None:
            self._anchor = Anchor(model, None, self.strength)
        return self._anchor


def is_automatic(anchor: Anchor) -> bool:
    """Whether the anchor has the strength "auto"."""
    return isinstance(anchor.dial, HoldShare)


def with_strength(model: Network, anchor: Anchor, strength: Strength) -> Anchor:
    """An anchor of the same θ* and Ω with another strength."""
    made = Anchor(model, None, strength)
    made.load_state_dict({**anchor.state_dict(), **made.state_dict()})
    return made


def uniform(model: Network, task: Task, estimator: str, *, new_rows: bool = False) -> Importance:
    """Ω = 1 for every weight that tasks share.

    Args:
        model: the network.
        task: the task that it is about to learn.
        estimator: what the importance says it was measured by.
        new_rows: Ω = 1 also for rows that a head has grown for the task; otherwise 0.
    """
    sums = {name: torch.ones_like(weights) for name, weights in trainable(model, exclude=model.unshared).items()}
    for name, first in () if new_rows else model.new_rows(task.name).items():
        sums[name][first:] = 0
    return Importance(sums, 1, estimator)
