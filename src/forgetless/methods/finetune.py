"""Fine-tuning: learn each task and protect nothing; what every other method is held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.optim import Optimizer

from forgetless.heads import MultiHead
from forgetless.task import Task


@dataclass
class Finetune:
    """Plain gradient descent on the task at hand."""

    name: ClassVar[str] = "finetune"
    strength: ClassVar[None] = None

    def begin(self, model: MultiHead, task: Task, optimizer: Optimizer) -> None:
        """Nothing to attach."""

    def penalty(self, inputs: Tensor, labels: Tensor, logits: Tensor) -> Tensor | None:
        """Nothing is added to the loss."""
        return None

    def end(self, model: MultiHead, task: Task) -> None:
        """Nothing to measure."""

    def state(self) -> dict[str, Tensor]:
        """Nothing is kept."""
        return {}

    def load_state(self, model: MultiHead, tensors: dict[str, Tensor]) -> None:
        """Nothing to take back."""
