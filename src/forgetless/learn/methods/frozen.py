"""Frozen backbone: train heads only. Nothing is forgotten, and later tasks can use earlier features only."""

from __future__ import annotations

from typing import ClassVar

from torch.optim import Optimizer

from forgetless.learn.method import Method
from forgetless.learn.network import Network
from forgetless.learn.task import Task


class Frozen(Method):
    """The backbone stays as it is once it is trained; each task trains its own head.

    A pretrained backbone is frozen from the start, one from scratch after the first task. A frozen backbone has no
    gradient and no weight decay, and its batch-norm statistics and dropout are as in eval mode, so that where each task
    has a head of its own R[i][j] = R[j][j] exactly.
    """

    name: ClassVar[str] = "frozen"

    def begin(self, model: Network, task: Task, optimizer: Optimizer) -> None:
        """Freeze the backbone if it is trained."""
        if model.is_trained:
            model.freeze()

    def end(self, model: Network, task: Task) -> None:
        """Unfreeze the backbone."""
        model.freeze(False)
