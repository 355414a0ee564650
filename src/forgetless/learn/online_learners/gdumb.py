"""GDumb: keep a balanced buffer, and learn from it alone when somebody asks.

Prabhu, Torr, Dokania, "GDumb: A Simple Approach that Questions Our Progress in Continual Learning", ECCV 2020.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor
from torch.optim import Optimizer

from forgetless.errors import ForgetlessError
from forgetless.learn.families.memory import Remembered, mean_loss
from forgetless.learn.network import Network
from forgetless.learn.streaming.budget import Budget
from forgetless.learn.streaming.learner import Replaying
from forgetless.learn.streaming.reservoir import Balanced
from forgetless.learn.task import Task


@dataclass
class GDumb(Replaying):
    """At the end of each task the network as it was before the stream learns the buffer, and nothing else.

    It takes as many updates as other learners took on the stream so far, each on as many samples as theirs. Between the
    ends of tasks the network of the last one answers, so its accuracy in between says little.

    Differences from the paper: a constant learning rate where that has a cosine, no CutMix, and the number of updates.
    """

    name: ClassVar[str] = "gdumb"
    _start: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    def begin(self, model: Network, tasks: Sequence[Task], optimizer: Optimizer, budget: Budget) -> None:
        """Keep the network as it is, for every task's end."""
        super().begin(model, tasks, optimizer, budget)
        self._start = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        self._buffer = Balanced(budget.buffer, tasks, [self._column(task.name) for task in tasks])

    def glance(self, part: Remembered, batch: int, last: bool) -> float:
        """Nothing is learned from the stream."""
        return 0.0

    def border(self, task: Task, batches: int) -> None:
        """Learn the buffer from the start.

        Raises:
            ForgetlessError: a loss that is NaN or Inf.
        """
        self._model.load_state_dict(self._start)
        self._optimizer.state.clear()
        self._model.train()
        for _ in range(batches * self._budget.glances):
            parts = self._buffer.draw(self._budget.batch_size + self._budget.replay)
            recalled = self.passes.recall(self._model, parts)
            loss = self._update(mean_loss(recalled), parts)
            if not math.isfinite(loss):
                raise ForgetlessError(
                    f"the loss became {loss} while 'gdumb' learned the buffer after task {task.name!r}; lower lr "
                    f"(now {self._budget.lr:g})."
                )
        self._optimizer.state.clear()

    def _column(self, task: str) -> int:
        """The number of the task's first class among all classes, where heads are not shared too."""
        if self._model.unshared:
            names = [each.name for each in self._tasks]
            return sum(self._model.width(each) for each in names[: names.index(task)])
        return self._model.first(task)
