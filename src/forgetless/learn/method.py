"""`Method`: what a way to learn a stream of tasks defines, and when the loop calls it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from torch import Tensor
from torch.optim import Optimizer

from forgetless.errors import ForgetlessError
from forgetless.learn.network import Network
from forgetless.learn.samples import Batch
from forgetless.learn.task import Task

if TYPE_CHECKING:
    from forgetless.protect.anchor import Anchor


#: λ, or "auto": most of the movement of each task's training is held back.
Strength = float | Literal["auto"]


@dataclass
class Method:
    """A way to learn a stream. The loop calls it at fixed points, and the method keeps what it needs.

    This class adds nothing, which is fine-tuning; a method overrides what it needs. Its public fields are its settings:
    together with its name they identify it in a checkpoint. Random numbers come from torch's global generator, which is
    seeded before each call of `begin` and `end` and before each step.

    Attributes:
        name: what it is called in the registry and in every table.
        strength: λ, constant over a task; None for a method that takes none; "auto" to hold back most of
            the movement of each task's training (`forgetless.HoldShare`).
        automatic: whether it takes "auto".
    """

    name: ClassVar[str]
    automatic: ClassVar[bool] = False
    strength: Strength | None = field(default=None, init=False)

    def settings(self) -> dict[str, str | int | float | bool | None]:
        """Its public fields, which define it together with its name."""
        return {each.name: getattr(self, each.name) for each in dataclasses.fields(self) if each.init}

    def set_strength(self, strength: float | str) -> None:
        """Give it another λ, or "auto", which acts from the next task on.

        Raises:
            ForgetlessError: a number that is negative or not finite, or a word that the method does not take.
        """
        if strength == "auto" and self.automatic:
            self.strength = "auto"
        elif isinstance(strength, str):
            accepted = "a number or 'auto'" if self.automatic else "a number"
            raise ForgetlessError(f"the strength of the method {self.name!r} must be {accepted}, not {strength!r}.")
        elif math.isfinite(strength) and strength >= 0:
            self.strength = strength
        else:
            raise ForgetlessError(f"the strength must be a finite number of 0 or more, not {strength!r}.")

    def found_strength(self) -> float | None:
        """λ, of "auto" that of the last step; None for a method that takes none."""
        if isinstance(self.strength, str):
            return next((anchor.strength for anchor in self.anchors()), None)
        return self.strength

    def begin(self, model: Network, task: Task, optimizer: Optimizer) -> None:
        """Called before a task's first step and before the warm start of its head.

        Args:
            model: the network, with room for the task.
            task: the task.
            optimizer: the task's new optimizer over all parameters.
        """
        return

    def penalty(self, batch: Batch) -> Tensor | None:
        """A scalar to be added to the loss of `batch`, after the network's pass over it; None for nothing."""
        return None

    def observe(self, model: Network, batch: Batch, losses: Tensor) -> None:
        """Called after every step of the optimizer.

        Args:
            model: the network.
            batch: what the step was taken on.
            losses: of its samples, `[N]`, before the step, without the penalty and without a graph.
        """
        return

    def end(self, model: Network, task: Task) -> None:
        """Called after the last step of a task: measure, consolidate, detach."""
        return

    def anchors(self) -> tuple[Anchor, ...]:
        """The anchors that protect the weights now, to be looked at; none for a method that has none."""
        return ()

    def state(self) -> dict[str, Tensor]:
        """Everything a resumed run needs, between any two steps and between tasks, by name."""
        return {}

    def load_state(self, model: Network, tensors: dict[str, Tensor], tasks: Sequence[Task] = ()) -> None:
        """Take back what `state` gave. Inside a task, `begin` was called just before, on the current weights.

        Args:
            model: the network.
            tensors: what `state` gave, on the CPU.
            tasks: the tasks so far, with the one that is being learned.
        """
        return
