"""Averaged Gradient Episodic Memory: take no step along which the loss on old samples would rise.

Chaudhry, Ranzato, Rohrbach, Elhoseiny, "Efficient Lifelong Learning with A-GEM", ICLR 2019, arXiv 1812.00420.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from forgetless.learn.families.memory import mean_loss, recall
from forgetless.learn.families.projection import away_from
from forgetless.learn.families.replaying import Replaying
from forgetless.learn.network import Network
from forgetless.learn.samples import Batch
from forgetless.learn.task import Task
from forgetless.model import batches


@dataclass
class AGEM(Replaying):
    """`g ← g − (gᵀr / rᵀr) r` where `gᵀr < 0`: g the step's gradient, r that of the loss on a batch from memory.

    Over all parameters together, r on as many samples as the step. Needs old samples and their targets. Memory:
    `memory` samples. An optimizer with momentum may still raise the old loss, here as in the paper.

    Differences from the paper: the memory is filled when a task ends, with equal random shares (see `er`); where the
    recipe clips gradients, g is clipped before.

    Attributes:
        memory: the most samples kept, of all tasks together.
    """

    name: ClassVar[str] = "a-gem"
    _batch: int = field(default=0, init=False, repr=False)
    _hook: RemovableHandle | None = field(default=None, init=False, repr=False)

    def begin(self, model: Network, task: Task, optimizer: Optimizer) -> None:
        """Project every step's gradient before the step is taken."""

        def project(*_: object) -> None:
            if len(self._memory):
                trained = [weights for weights in model.parameters() if weights.requires_grad]
                with torch.enable_grad():
                    loss = mean_loss(recall(model, self._memory.draw(self._batch)))
                away_from(trained, torch.autograd.grad(loss, trained, allow_unused=True))

        self._hook = optimizer.register_step_pre_hook(project)

    def penalty(self, batch: Batch) -> Tensor | None:
        """Nothing; only the size of the batch is noted."""
        self._batch = batches.size(batch)
        return None

    def end(self, model: Network, task: Task) -> None:
        """Keep samples of the task."""
        if self._hook is not None:
            self._hook.remove()
        self._hook = None
        super().end(model, task)
