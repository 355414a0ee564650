"""Experience replay and Memory Aware Synapses, whose Ω is measured on the buffer.

Aljundi, Babiloni, Elhoseiny, Rohrbach, Tuytelaars, "Memory Aware Synapses", ECCV 2018, arXiv 1711.09601.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch.optim import Optimizer

from forgetless.learn.network import Network
from forgetless.learn.streaming.budget import Budget
from forgetless.learn.streaming.importance import importance_of
from forgetless.learn.streaming.learner import Replaying
from forgetless.learn.task import Task
from forgetless.protect.anchor import Anchor


@dataclass
class ERMAS(Replaying):
    """ER under `λ Σ Ω (θ − θ*)²`: at the end of a task Ω is measured on the buffer, without labels, and θ* moves.

    The buffer holds samples of all tasks so far, so that the new Ω replaces the old one. The penalty acts as a proximal
    step (the pull).

    Attributes:
        strength: λ.
    """

    name: ClassVar[str] = "er-mas"
    strength: float = 1.0
    _anchor: Anchor = field(init=False, repr=False)

    def begin(self, model: Network, tasks: Sequence[Task], optimizer: Optimizer, budget: Budget) -> None:
        """Attach an anchor that protects nothing yet.

        Raises:
            ForgetlessError: a strength that `forgetless.Anchor` refuses.
        """
        super().begin(model, tasks, optimizer, budget)
        self._anchor = Anchor(model, None, self.strength)
        self._anchor.attach(optimizer)

    def border(self, task: Task, batches: int) -> None:
        """Measure Ω on the buffer, and protect the present weights."""
        self._anchor.consolidate(importance_of(self._model, self._buffer.all(), self.passes), 0.0)

    def anchors(self) -> tuple[Anchor, ...]:
        """Its anchor."""
        return (self._anchor,)

    def tree(self) -> dict[str, Any]:
        """The buffer, θ* and Ω."""
        return {**super().tree(), "anchor": self._anchor.state_dict()}

    def load(self, tree: dict[str, Any]) -> None:
        """Take them back."""
        super().load(tree)
        self._anchor.load_state_dict(tree["anchor"])
