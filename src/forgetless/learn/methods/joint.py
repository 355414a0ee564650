"""Joint training: learn all tasks so far at once, with all their data. The upper bound for methods without old data.

Caruana, "Multitask Learning", Machine Learning 28, 1997.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from forgetless.learn.families.memory import recall
from forgetless.learn.families.replaying import Replaying
from forgetless.learn.samples import Batch
from forgetless.model import batches


@dataclass
class Joint(Replaying):
    """The loss is the sum of all losses so far: a step takes a batch of the new task and one of every earlier task.

    An upper bound: it keeps all data in memory and in its checkpoints, and a step costs as many batches as there are
    tasks. It continues from the weights of the task before; others train anew on all data for each task.
    """

    name: ClassVar[str] = "joint"
    memory: None = field(default=None, init=False)

    def penalty(self, batch: Batch) -> Tensor | None:
        """The losses of a batch of every earlier task."""
        if not len(self._memory):
            return None
        assert self._model is not None
        recalled = recall(self._model, self._memory.draw_each(batches.size(batch)))
        return sum((losses.mean() for _, losses in recalled[1:]), start=recalled[0][1].mean())
