"""Frozen backbone: train heads only. It forgets nothing, and sees each task through what it knew before."""

from __future__ import annotations

from typing import ClassVar

from torch.optim import Optimizer

from forgetless.learn.heads import MultiHead
from forgetless.learn.task import Method, Task


class Frozen(Method):
    """The backbone stays as it is once it knows something; each task trains its own head.

    A pretrained backbone is frozen from the start, one from scratch after the first task. Freezing is whole: no gradient,
    no weight decay, batch-norm statistics and dropout as in eval mode, so R[i][j] = R[j][j] exactly.
    """

    name: ClassVar[str] = "frozen"

    def begin(self, model: MultiHead, task: Task, optimizer: Optimizer) -> None:
        """Freeze the backbone if it knows something."""
        if model.knows_something:
            model.freeze()

    def end(self, model: MultiHead, task: Task) -> None:
        """Let the backbone go."""
        model.freeze(False)
