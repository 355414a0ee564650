"""Frozen trunk: train heads only. It forgets nothing, and sees each task through what it knew before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.optim import Optimizer

from forgetless.heads import MultiHead
from forgetless.task import Task


@dataclass
class Frozen:
    """The trunk stays as it is once it knows something; each task trains its own head.

    A pretrained trunk is frozen from the start, one from scratch after the first task. Freezing is whole: no
    gradient, no weight decay, batch-norm statistics and dropout as in eval mode, so R[i][j] = R[j][j] exactly.
    """

    name: ClassVar[str] = "frozen"
    strength: ClassVar[None] = None

    def begin(self, model: MultiHead, task: Task, optimizer: Optimizer) -> None:
        """Freeze the trunk if it knows something."""
        if model.pretrained or len(model.heads) > 1:
            model.freeze()

    def penalty(self, inputs: Tensor, labels: Tensor, logits: Tensor) -> Tensor | None:
        """Nothing is added to the loss."""
        return None

    def end(self, model: MultiHead, task: Task) -> None:
        """Let the trunk go."""
        model.freeze(False)

    def state(self) -> dict[str, Tensor]:
        """Nothing is kept but the weights."""
        return {}

    def load_state(self, model: MultiHead, tensors: dict[str, Tensor]) -> None:
        """Nothing to take back."""
