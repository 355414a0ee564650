"""Joint training: learn all tasks so far at once, with all their data. What a method without old data can hope for.

Caruana, "Multitask Learning", Machine Learning 28, 1997.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from forgetless.learn.families.memory import recall
from forgetless.learn.families.replaying import Replaying


@dataclass
class Joint(Replaying):
    """The loss is the sum of all losses so far: a step takes a batch of the new task and one of every earlier task.

    An upper bound, not a rival: it keeps all data (its checkpoints too), and a step costs as many batches as there are
    tasks. It goes on from the weights of the task before, where others train anew on all data for each task.
    """

    name: ClassVar[str] = "joint"
    memory: None = field(default=None, init=False)

    def penalty(self, inputs: Tensor, labels: Tensor, logits: Tensor) -> Tensor | None:
        """The losses of a batch of every earlier task."""
        if not len(self._memory):
            return None
        assert self._model is not None
        losses = [F.cross_entropy(now, then) for now, then in recall(self._model, self._memory.draw_each(len(labels)))]
        return sum(losses, start=logits.new_zeros(()))
