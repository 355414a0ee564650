"""Dark Experience Replay++: keep old samples with what the network answered to them, and replay both.

Buzzega, Boschini, Porrello, Abati, Calderara, "Dark Experience for General Continual Learning: a Strong, Simple
Baseline", NeurIPS 2020, arXiv 2004.07211.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from forgetless.learn.families.memory import mean_loss, recall
from forgetless.learn.families.replaying import Replaying
from forgetless.learn.heads import MultiHead
from forgetless.learn.task import Task

_BATCH = 128


@dataclass
class DER(Replaying):
    """`λ (α ‖z − z*‖² / C + β cross-entropy)`, each on a batch from memory as large as the new one.

    z are the logits now, z* those when the sample's task ended, C how many. Needs old samples and their labels. Memory:
    `memory` samples with their logits.

    What differs from the paper: the memory is filled when a task ends (see `er`), with the logits of then and in eval
    mode, where the paper keeps those of the moment in training at which a sample was drawn; of a head that has grown
    since, the logits that it had then are compared.

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

    def penalty(self, inputs: Tensor, labels: Tensor, logits: Tensor) -> Tensor | None:
        """How far the answers to one batch from memory have moved, and the loss of another; None while it is empty."""
        if not self.strength or not len(self._memory):
            return None
        assert self._model is not None
        drawn = self._memory.draw(len(labels))
        moved = [
            F.mse_loss(now[:, : then.shape[1]], then.to(now.device)) * len(then)
            for (now, _), then in zip(recall(self._model, drawn), (each.logits for each in drawn), strict=True)
            if then is not None
        ]
        distance = torch.stack(moved).sum() / sum(len(each.labels) for each in drawn)
        loss = mean_loss(recall(self._model, self._memory.draw(len(labels))))
        return self.strength * (self.alpha * distance + self.beta * loss)

    def end(self, model: MultiHead, task: Task) -> None:
        """Keep samples of the task, with the network's answers."""

        @torch.no_grad()
        def answers(inputs: Tensor) -> Tensor:
            device = next(model.parameters()).device
            training = model.training
            model.eval()
            logits = [model(batch.to(device), task.name).to(inputs.device) for batch in torch.split(inputs, _BATCH)]
            model.train(training)
            return torch.cat(logits)

        self._memory.add(task, answers)
