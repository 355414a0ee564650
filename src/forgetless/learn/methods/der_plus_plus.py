"""Dark Experience Replay++: keep old samples with the network's outputs for them, and replay both.

Buzzega, Boschini, Porrello, Abati, Calderara, "Dark Experience for General Continual Learning: a Strong, Simple
Baseline", NeurIPS 2020, arXiv 2004.07211.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from forgetless.learn.families.memory import distance_from, mean_loss, recall
from forgetless.learn.families.replaying import Replaying
from forgetless.learn.network import Network
from forgetless.learn.samples import Batch
from forgetless.learn.task import Task
from forgetless.model import batches

_BATCH = 128


@dataclass
class DERPlusPlus(Replaying):
    """`λ (α ‖z − z*‖² / C + β loss)`, each on a batch from memory as large as the new one.

    z are the outputs now, z* those when the sample's task ended, C how many; the loss is that of the objective of the
    sample's task. Needs old samples and their targets. Memory: `memory` samples with their outputs.

    Differences from the paper: the memory is filled when a task ends (see `er`), with the outputs of that moment and in
    eval mode, where the paper keeps those of the step at which a sample was drawn; of a head that has grown since, the
    outputs that it had then are compared.

    Attributes:
        strength: λ, of both parts together.
        alpha: α; 1 and β ½ are the authors' for split MNIST with 500 samples.
        beta: β.
        memory: the most samples kept, of all tasks together.
    """

    name: ClassVar[str] = "der++"
    strength: float = 1.0
    alpha: float = 1.0
    beta: float = 0.5

    def penalty(self, batch: Batch) -> Tensor | None:
        """How far the outputs for one batch from memory have moved, and the loss of another; None while it is empty."""
        if not self.strength or not len(self._memory):
            return None
        assert self._model is not None
        size = batches.size(batch)
        drawn = self._memory.draw(size)
        distance = distance_from(recall(self._model, drawn), drawn)
        loss = mean_loss(recall(self._model, self._memory.draw(size)))
        return self.strength * (self.alpha * distance + self.beta * loss)

    def end(self, model: Network, task: Task) -> None:
        """Keep samples of the task, with the network's outputs."""

        @torch.no_grad()
        def answers(inputs: Any) -> Tensor:
            device = next(model.parameters()).device
            training = model.training
            model.eval()
            found = []
            for start in range(0, batches.size(inputs), _BATCH):
                piece = batches.rows(inputs, start, min(start + _BATCH, batches.size(inputs)))
                outputs = model(batches.mapped(piece, lambda tensor: tensor.to(device)), task.name)
                found.append(outputs.to(next(batches.tensors(inputs)).device))
            model.train(training)
            return torch.cat(found)

        self._memory.add(task, answers)
