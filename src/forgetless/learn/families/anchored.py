"""What the methods that hold an anchor share: they differ in what they measure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from forgetless.learn.heads import MultiHead
from forgetless.learn.task import Method, Task
from forgetless.measure.importance import Importance
from forgetless.model.parameters import trainable
from forgetless.protect.anchor import Anchor


@dataclass
class Anchored(Method):
    """Learn a task under `λ Σ Ω (θ − θ*)²`, then add the task's Ω and move θ* to the current weights.

    The penalty is not in the loss: its closed-form pull follows the optimizer's step, so that a large λ cannot make it
    diverge. Memory: θ* and Ω, however many tasks there are. A head of a single task is not protected, for it is trained
    no more; one that tasks share is, like everything else.

    Attributes:
        strength: λ.
    """

    how: ClassVar[str] = "pull"  # what the anchor is attached as
    strength: float = 1.0
    _anchor: Anchor | None = field(default=None, init=False, repr=False)

    def measure(self, model: MultiHead, task: Task) -> Importance:
        """Ω of the task that has just been learned."""
        raise NotImplementedError

    def begin(self, model: MultiHead, task: Task, optimizer: Optimizer) -> None:
        """Attach: from now on every step is pulled towards θ*, by Ω."""
        anchor = self.anchor(model)
        anchor.strength = self.strength
        anchor.attach(optimizer, self.how)

    def end(self, model: MultiHead, task: Task) -> None:
        """Measure the task's Ω, add it, and move θ* to the current weights."""
        anchor = self.anchor(model)
        anchor.detach()
        anchor.consolidate(self.measure(model, task))

    def state(self) -> dict[str, Tensor]:
        """θ* and Ω."""
        return {} if self._anchor is None else self._anchor.state_dict()

    def load_state(self, model: MultiHead, tensors: dict[str, Tensor]) -> None:
        """Take θ* and Ω back."""
        if tensors:
            self.anchor(model).load_state_dict(tensors)

    def anchor(self, model: MultiHead) -> Anchor:
        """The anchor; a new one holds nothing yet."""
        if self._anchor is None:
            self._anchor = Anchor(model, None, self.strength)
        return self._anchor


def padded(tensor: Tensor, like: Tensor) -> Tensor:
    """`tensor` in the corner of zeros in the shape of `like`: what a head that has grown knew before."""
    if tensor.shape == like.shape:
        return tensor
    grown = tensor.new_zeros(like.shape)
    grown[tuple(slice(size) for size in tensor.shape)] = tensor
    return grown


def alike(model: MultiHead, task: Task, estimator: str, *, new_rows: bool = False) -> Importance:
    """Ω = 1 for every weight that earlier tasks have had a part in; with `new_rows` also for those grown for `task`."""
    sums = {name: torch.ones_like(weights) for name, weights in trainable(model, exclude=model.unshared).items()}
    if model.scenario == "class" and not new_rows:
        for name in ("heads.shared.weight", "heads.shared.bias"):
            sums[name][model.first(task.name) :] = 0
    return Importance(sums, 1, estimator)
