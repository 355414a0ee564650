"""Recording a run from beside it: it reads the weights, and changes neither them nor any random number."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from forgetless.lab.traces.album import Album, write_albums
from forgetless.lab.traces.layers import Layers
from forgetless.lab.traces.trace import FOLDER, Answer, Moved, TaskEnd, append
from forgetless.learn.classification import Classification
from forgetless.learn.network import Network
from forgetless.learn.position import Progress
from forgetless.learn.task import Task
from forgetless.model import batches
from forgetless.protect.anchor import Anchor

_POINTS = 8  # of the drift in a task


class Recorder:
    """Writes the trace of one run, told of its progress before the run goes on.

    Eight times in a task it takes the norm of the weights' distance from the start, and at the end of a task it looks
    at every layer once and asks the network about a few test samples: far less than a step's work per task.

    Args:
        model: the network as it is at the start of the stream; a copy of its shared weights is kept.
        anchors: what gives the anchors that protect it now.
        tasks: the stream, in the order in which it is learned.
        albums: the test samples of its tasks.
        folder: the run directory.
        stem: the name of the run's files.
        worth: how many steps at the peak learning rate a task of so many steps is worth.
    """

    def __init__(
        self,
        model: Network,
        anchors: Callable[[], Sequence[Anchor]],
        tasks: Sequence[Task],
        albums: Sequence[Album],
        folder: Path,
        stem: str,
        worth: Callable[[int], float] = float,
    ) -> None:
        self._model, self._tasks, self._worth = model, tasks, worth
        self._albums = {album.task: album for album in albums}
        self._path = folder / FOLDER / f"{stem}.jsonl"
        self._layers, self._anchors = Layers(model, anchors), anchors
        write_albums(folder / FOLDER, albums)

    def beside(self, tell: Callable[[Progress], None]) -> Callable[[Progress], None]:
        """A function that records, and then tells."""

        def told(progress: Progress) -> None:
            self.note(progress)
            tell(progress)

        return told

    @torch.no_grad()
    def note(self, progress: Progress) -> None:
        """The run is here.

        Raises:
            ForgetlessError: the trace cannot be written.
        """
        if progress.phase == "train":
            if progress.steps and _passes(progress.step, progress.steps):
                self._move(progress.task - 1 + progress.step / progress.steps)
        elif progress.phase == "measure":
            self._layers.look_at_protection(self._worth(max(1, progress.step)))
        elif progress.phase == "evaluate":
            self._move(progress.task)
            last = progress.task == progress.tasks
            append(self._path, TaskEnd(progress.task, self._layers.found(last), self._answers(progress.task, last)))

    def _move(self, at: float) -> None:
        drift = self._layers.drift()
        if math.isfinite(drift):
            strength = next((anchor.strength for anchor in self._anchors()), None)
            append(self._path, Moved(round(at, 4), drift, strength))

    def _answers(self, number: int, last: bool) -> list[Answer]:
        """What the network says of the samples of the task that has just been learned, or in the end of all."""
        training = self._model.training
        self._model.eval()
        asked = self._tasks[:number] if last else self._tasks[number - 1 : number]
        found = [answer for task in asked if task.name in self._albums for answer in self._asked(task)]
        self._model.train(training)
        return found

    def _asked(self, task: Task) -> list[Answer]:
        device = next(self._model.parameters()).device
        inputs = batches.mapped(self._albums[task.name].inputs, lambda tensor: tensor.to(device))
        shares = self._model(inputs, task.name).float().softmax(1)
        named = self._columns(task)
        sure, columns = (each.tolist() for each in shares.max(1))
        return [
            Answer(task.name, number, named.get(column, f"output {column}"), round(min(1.0, share), 4))
            for number, (column, share) in enumerate(zip(columns, sure, strict=True))
            if math.isfinite(share)
        ]

    def _columns(self, task: Task) -> dict[int, str]:
        """What each output of the head that answers for the task means."""
        head = self._model.head(task.name)
        named: dict[int, str] = {}
        for each in self._tasks:
            if each.name in self._model.tasks and self._model.head(each.name) is head:
                classes = each.objective.classes if isinstance(each.objective, Classification) else ()
                first = self._model.first(each.name)
                named |= {first + number: name for number, name in enumerate(classes)}
        if isinstance(task.objective, Classification):  # what this task calls them, where tasks share their outputs
            first = self._model.first(task.name)
            named |= {first + number: name for number, name in enumerate(task.objective.classes)}
        return named


def _passes(step: int, steps: int) -> bool:
    """Whether the step is the first in its eighth of the task."""
    return step * _POINTS // steps != (step - 1) * _POINTS // steps
