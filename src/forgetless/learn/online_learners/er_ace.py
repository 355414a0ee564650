"""Experience replay with asymmetric cross-entropy.

Caccia, Aljundi, Asadi, Tuytelaars, Pineau, Belilovsky, "New Insights on Reducing Abrupt Representation Change in Online
Continual Learning", ICLR 2022, arXiv 2104.05025.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from forgetless.learn.families.memory import Remembered, mean_loss
from forgetless.learn.streaming.learner import Replaying
from forgetless.model import batches


@dataclass
class ERACE(Replaying):
    """ER in which the stream's batch competes with its own classes only: the softmax leaves the other logits out.

    New classes then do not push down old ones, whose features they would change abruptly; replayed samples compete with
    all classes. For classification.

    Differences from the authors' code: as in the paper's formula, logits of classes that have not come yet are left out
    too, and from the first task on.
    """

    name: ClassVar[str] = "er-ace"

    def _loss(self, parts: list[Remembered], recalled: list[tuple[Tensor, Tensor]]) -> Tensor:
        part, (outputs, _) = parts[0], recalled[0]
        labels = batches.labels(part.batch).to(outputs.device)
        absent = torch.ones(outputs.shape[1], dtype=torch.bool, device=outputs.device)
        absent[labels + self._model.first(part.task)] = False
        masked = outputs.masked_fill(absent, torch.finfo(outputs.dtype).min)
        own = batches.mapped(part.batch, lambda tensor: tensor.to(outputs.device))
        stream = part.objective.losses(self._model, part.task, masked, own).mean()
        return stream + mean_loss(recalled[1:]) if len(parts) > 1 else stream
