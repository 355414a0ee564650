"""Experience replay: learn a few samples of earlier tasks along with the new ones.

Chaudhry et al., "On Tiny Episodic Memories in Continual Learning", 2019, arXiv 1902.10486; Ratcliff 1990.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from forgetless.learn.families.memory import mean_loss, recall
from forgetless.learn.families.replaying import Replaying
from forgetless.learn.samples import Batch
from forgetless.model import batches


@dataclass
class ER(Replaying):
    """`λ` times the mean loss of a batch from memory, as large as the new one, each sample under its task's head.

    The loss is that of the objective of the sample's task. Needs old samples and their targets, which the methods that
    anchor weights do not. Memory: `memory` samples.

    Differences from the paper: tasks are learned over many epochs, so the memory is filled when a task ends, with equal
    random shares of the tasks so far, and not from the stream by a reservoir.

    Attributes:
        strength: λ; 1 weighs old and new batches alike, as in the paper.
        memory: the most samples kept, of all tasks together.
    """

    name: ClassVar[str] = "er"
    strength: float = 1.0

    def penalty(self, batch: Batch) -> Tensor | None:
        """The loss of a batch from memory; None while it is empty."""
        if not self.strength or not len(self._memory):
            return None
        assert self._model is not None
        return self.strength * mean_loss(recall(self._model, self._memory.draw(batches.size(batch))))
