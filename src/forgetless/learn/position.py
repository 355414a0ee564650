"""The position of a run in its stream: for checkpoints, and for progress reports."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.learn.metrics import Matrix

Count = Annotated[int, files.Between(0, 2**62)]
_P = TypeVar("_P", bound="Position")
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
        step: steps done in this task.
        steps: all steps of this task; 0 outside "train" and where a stream does not tell.
        loss: the last batch's loss with the penalty; NaN outside "train".
        accuracy: R so far; empty where it is not told.
    """

    task: int
    tasks: int
    name: str
    phase: str
    epoch: int
    step: int
    steps: int
    loss: float
    accuracy: Matrix = field(default_factory=list)


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

    index: Count
    step: Count
    epoch: Count
    batch: Count
    accuracy: Matrix
    seconds: dict[str, float]

    @classmethod
    def first(cls: type[_P], tasks: int) -> _P:
        """The beginning of a stream of so many tasks."""
        return cls(0, 0, 0, 0, [[None] * tasks for _ in range(tasks)], dict.fromkeys(PHASES, 0.0))

    @classmethod
    def read(cls: type[_P], value: object, tasks: int, path: str | Path) -> _P:
        """What `saved` gave, of a stream of so many tasks.

        Raises:
            ForgetlessError: it is not that; names what does not fit.
        """
        found: _P = files.decoded(value, cls, path)
        square = len(found.accuracy) == tasks and all(len(row) == tasks for row in found.accuracy)
        if not square or found.index > tasks or found.seconds.keys() != set(PHASES):
            raise ForgetlessError(f"{path} is damaged: its position is not one in a stream of {tasks} tasks.")
        return found

    def next_task(self) -> None:
        """Move to before the next task."""
        self.index, self.step, self.epoch, self.batch = self.index + 1, 0, 0, 0

    @contextlib.contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the seconds that a block takes to those of a phase."""
        start = time.perf_counter()
        yield
        self.seconds[phase] += time.perf_counter() - start

    def saved(self) -> dict[str, Any]:
        """Its fields, for a checkpoint."""
        return {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
