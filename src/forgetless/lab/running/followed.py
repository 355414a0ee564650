"""A run directory watched from outside: read only, while another process writes to it or after it has ended."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.files.lock import NAME as LOCK
from forgetless.lab.running.jobs import Job
from forgetless.lab.running.journal import Journal
from forgetless.lab.traces import latest
from forgetless.learn import metrics

Stage = Literal["waiting", "running", "done"]


@dataclass
class Followed:
    """One run of the directory.

    Attributes:
        job: which.
        stage: whether it has begun and ended.
        task: how many tasks are learned, the present one among them.
        name: the present task's name.
        phase: what is done with it.
        epoch: of its training.
        loss: at the last end of an epoch.
        average: over the tasks that were learned by then.
        forgetting: of them; None of a single one.
        strength: λ of the protection; None where nothing is protected yet.
        drift: `‖θ − θ₀‖ / ‖θ₀‖`, how far the weights are from the start.
        share: how much is done.
    """

    job: Job
    stage: Stage = "waiting"
    task: int = 0
    name: str = ""
    phase: str = ""
    epoch: int = 0
    loss: float | None = None
    average: float | None = None
    forgetting: float | None = None
    strength: float | None = None
    drift: float | None = None
    share: float = 0.0


class Follower:
    """What the log of a run directory says so far.

    Args:
        folder: a run directory.

    Attributes:
        experiment: its name.
        tasks: how many tasks a run has.
        epochs: of each.
        jobs: what is planned, begun and done.

    Raises:
        ForgetlessError: it is no run directory.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / "config.json").is_file():
            raise ForgetlessError(f"{folder} is no run directory: it has no config.json; name an --out of a run.")
        config = files.read_json(folder / "config.json")
        config = config if isinstance(config, dict) else {}
        self.experiment = str(config.get("experiment", folder.name))
        tasks, recipe = config.get("tasks"), config.get("recipe")
        self.tasks = len(tasks) if isinstance(tasks, list) and tasks else 1
        self.epochs = _count(recipe.get("epochs") if isinstance(recipe, dict) else None) or 1
        self.jobs: dict[tuple[Any, ...], Followed] = {}
        self._journal, self._learned = Journal(folder), 0.0
        self._folder, self._settled = folder, set[Job]()
        self._begun: float | None = None
        self._last: float | None = None
        self._order: dict[tuple[Any, ...], list[str]] = {}

    def update(self) -> None:
        """Read what was added to the log; a line that is not whole yet is left for the next time."""
        for entry in self._journal.more():
            self._note(entry)
        for run in self.jobs.values():
            if run.stage != "waiting" and run.job not in self._settled:
                self._look(run)

    def _look(self, run: Followed) -> None:
        """Read the run's trace: where its weights are, and how strongly they are held."""
        seen = latest(self._folder, run.job.method, run.job.seed, run.job.order)
        if seen is not None:
            run.drift = seen.drift
            run.strength = seen.strength if run.strength is None or run.stage == "running" else run.strength
        if run.stage == "done":
            self._settled.add(run.job)

    def _note(self, entry: Mapping[str, Any]) -> None:
        self._last = _seconds(entry.get("time"))
        event = entry.get("event")
        if event == "start":
            for each in _runs(entry.get("runs")):
                self._followed(*each)
            self._begun, self._learned = self._last, sum(each.share for each in self.jobs.values())
        elif isinstance(entry.get("method"), str):
            run = self._followed(entry["method"], _count(entry.get("seed")), _count(entry.get("order")))
            if event == "done":
                run.stage, run.share, run.task = "done", 1.0, self.tasks
                run.average, run.forgetting = _figures(entry.get("accuracy"))
                run.strength = _number(entry.get("strength"))
            else:
                self._moved(run, str(event), entry)

    def _followed(self, method: str, seed: int, order: int = 0) -> Followed:
        return self.jobs.setdefault((method, seed, order), Followed(Job("", method, seed, order)))

    def _moved(self, run: Followed, phase: str, entry: Mapping[str, Any]) -> None:
        name = str(entry.get("task", ""))
        known = self._order.setdefault((run.job.method, run.job.seed, run.job.order), [])
        if phase != "search" and name not in known:
            known.append(name)
        run.stage, run.name, run.phase = "running", name, phase
        run.task = known.index(name) + 1 if name in known else max(1, run.task)
        run.epoch, run.loss = _count(entry.get("epoch")), _number(entry.get("loss"))
        run.average, run.forgetting = _number(entry.get("average")), _number(entry.get("forgetting"))
        within = {"search": 0.0, "warm_start": 0.0, "train": run.epoch / max(1, self.epochs)}.get(phase, 1.0)
        run.share = max(run.share, min(1.0, (run.task - 1 + within) / self.tasks))

    @property
    def share(self) -> float:
        """How much of all is done."""
        return sum(run.share for run in self.jobs.values()) / max(1, len(self.jobs))

    def left(self) -> float | None:
        """Seconds to go at the pace since the last start; None where it is not known or nothing is left."""
        if self._begun is None or self._last is None or self.share >= 1:
            return None
        done = sum(run.share for run in self.jobs.values()) - self._learned
        return (self._last - self._begun) * (len(self.jobs) * (1 - self.share)) / done if done > 0.05 else None

    def facts(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        return {
            "experiment": self.experiment,
            "share": self.share,
            "seconds left": self.left(),
            "runs": [{**asdict(run), "job": run.job.label} for run in self.jobs.values()],
        }


def directories(path: Path) -> list[Path]:
    """The run directories at a path: itself, or those in it where an experiment has several."""
    if (path / "config.json").is_file():
        return [path]
    found = sorted(each.parent for each in path.glob("*/config.json"))
    if not found:
        raise ForgetlessError(f"{path} is no run directory: it has no config.json; name an --out of a run.")
    return found


def in_use(path: Path) -> bool:
    """Whether a process that lives writes there."""
    try:
        number = int(files.read_bytes(path / LOCK, 64))
        os.kill(number, 0)
    except (ForgetlessError, ValueError, ProcessLookupError):
        return False
    except PermissionError:  # it lives, and is somebody else's
        return True
    return True


def _figures(accuracy: Any) -> tuple[float | None, float | None]:
    """The average after the last task, and the forgetting."""
    try:
        rows: list[list[float | None]] = files.decoded(accuracy, list[list[float | None]], "the log")
        average = metrics.average_accuracy(rows)
        return average, metrics.forgetting(rows) if len(rows) > 1 else None
    except ForgetlessError:
        return None, None


def _runs(value: Any) -> list[tuple[str, int, int]]:
    """What a start plans: method, seed and order of each run; nothing where that is not what stands there."""
    try:
        found: list[tuple[str, int, int]] = files.decoded(value, list[tuple[str, int, int]], "the log")
    except ForgetlessError:
        return []
    return found


def _number(value: Any) -> float | None:
    try:
        found = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:  # an integer of hundreds of digits
        return None
    return found if math.isfinite(found) else None


def _count(value: Any) -> int:
    """A number of a line that may come from anywhere; 0 where it is none."""
    return value if type(value) is int and 0 <= value < 1 << 53 else 0


def _seconds(text: Any) -> float | None:
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S%z").timestamp()
    except (TypeError, ValueError):
        return None
