"""The position of a run in its stream: for checkpoints, and for progress reports."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from forgetless.learn.metrics import Matrix

PHASES = ("warm_start", "train", "measure", "evaluate")


@dataclass(frozen=True)
class Progress:
    """Where a run is. All numbers count from 1; `step` and `steps` are the task's.

    Attributes:
        task: the number of the task, of `tasks`.
        tasks: how many there are.
        name: the task's name.
        phase: one of `PHASES`, reported when it starts; "train" after every step.
        epoch: the epoch of the last step; 0 outside "train".
        step: steps done in this task; 0 outside "train".
        steps: all steps of this task; 0 outside "train" and where a stream does not tell.
        loss: the last batch's loss with the penalty; NaN outside "train".
    """

    task: int
    tasks: int
    name: str
    phase: str
    epoch: int
    step: int
    steps: int
    loss: float


@dataclass
class Position:
    """Where a run is and what it has found, as JSON can hold it. Step 0 is before the task begins.

    Attributes:
        index: the present task, from 0.
        step: steps done in it.
        epoch: epochs done in it.
        batch: batches done in the present epoch.
        accuracy: R so far.
        seconds: phase → seconds so far.
    """

    index: int
    step: int
    epoch: int
    batch: int
    accuracy: Matrix
    seconds: dict[str, float]

    @classmethod
    def first(cls, tasks: int) -> Position:
        """The beginning of a stream of so many tasks."""
        return cls(0, 0, 0, 0, [[None] * tasks for _ in range(tasks)], dict.fromkeys(PHASES, 0.0))

    def next_task(self) -> None:
        """Move to before the next task."""
        self.index, self.step, self.epoch, self.batch = self.index + 1, 0, 0, 0

    def saved(self) -> dict[str, Any]:
        """Its fields, for a checkpoint."""
        return {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
