"""What the log of a run directory says, for loggers: `--log csv`, `tensorboard`, `wandb`, `trackio`.

The log is the source, and what was passed on is remembered beside it. So a logger may be added to a run later, when it
is continued or done, and gets all of it; a run that is continued goes on where it was.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.integrations import loggers
from forgetless.lab.running.jobs import Job
from forgetless.lab.running.journal import Journal
from forgetless.lab.running.work import order_of
from forgetless.learn import metrics

Point = tuple[int, dict[str, float]]
_Count = Annotated[int, files.Between(0, 2**53)]


@dataclass(frozen=True)
class _Passed:
    """What was passed on: how many bytes of the log, and each run's last epoch with a loss."""

    read: _Count = 0
    learned: dict[str, _Count] = field(default_factory=dict)


@dataclass(frozen=True)
class _Entry:
    """What counts of a line of the log, which may come from anywhere."""

    event: str
    method: str
    seed: _Count = 0
    order: _Count = 0
    task: str = ""
    epoch: _Count = 0
    loss: float | None = None
    accuracy: list[list[float | None]] = field(default_factory=list)
    strength: float | None = None

    @property
    def run(self) -> str:
        """The name of the run's files."""
        return Job("", self.method, self.seed, self.order).stem


class Logged:
    """Passes the figures of a run directory on to a logger, whose files are in `logs/NAME` of that directory.

    | key | step: epochs of the whole stream |
    |---|---|
    | `forgetless/loss` | at the beginning of every epoch: of its first batch, with the penalty |
    | `forgetless/accuracy/TASK` | after every task: of each that was learned by then |
    | `forgetless/average_accuracy`, `forgetless/forgetting` | after every task: of those that were learned by then |
    | `forgetless/strength` | after the last task: λ of the methods that have one |

    Accuracies come when a run is done, for the steps that they belong to; where an experiment has another score, it is
    that one.

    Args:
        folder: the run directory, which may not exist yet.
        name: the logger.

    Raises:
        ForgetlessError: there is no such logger, or its package is not installed.
    """

    def __init__(self, folder: Path, name: str) -> None:
        loggers.check(name)
        self._run, self._name = folder, name
        self._folder, self._read = folder / "logs" / name, folder / "logs" / f"{name}.json"
        self._journal: Journal | None = None
        self._open: dict[str, loggers.Logger] = {}

    def update(self) -> None:
        """Pass on what was added to the log.

        Raises:
            ForgetlessError: the log cannot be read, or the logger's files cannot be written.
        """
        if self._journal is None:
            if not (self._run / "config.json").is_file():
                return
            self._config = files.read_json(self._run / "config.json")
            held = files.read_json(self._read) if self._read.exists() else {}
            passed: _Passed = files.decoded(held, _Passed, self._read)
            self._journal, self._learned = Journal(self._run, passed.read), dict(passed.learned)
        before = self._journal.at
        for entry in filter(None, map(self._entry, self._journal.more())):
            for step, values in self._points(entry):
                self._logger(entry.run).log(step, values)
        if self._journal.at != before:
            with files.told(self._folder):
                self._folder.mkdir(parents=True, exist_ok=True)
            files.write_json(self._read, {"read": self._journal.at, "learned": self._learned})

    def close(self) -> None:
        """Pass on the rest, and close the logger's files."""
        try:
            self.update()
        finally:
            for each in self._open.values():
                each.close()
            self._open.clear()

    def _entry(self, line: Mapping[str, Any]) -> _Entry | None:
        """A line that is about a run; None for any other, and for one that a run cannot have written."""
        known = {key: value for key, value in line.items() if key in _Entry.__dataclass_fields__}
        try:
            entry: _Entry = files.decoded(known, _Entry, self._run / "log.jsonl")
        except ForgetlessError:
            return None
        return entry if Path(entry.run).name == entry.run else None  # a name that would lead elsewhere

    def _logger(self, run: str) -> loggers.Logger:
        if run not in self._open:
            project = str(self._config.get("experiment", "forgetless"))
            self._open[run] = loggers.create(self._name, self._folder, run, project=project)
        return self._open[run]

    def _points(self, entry: _Entry) -> list[Point]:
        if entry.event not in ("train", "done"):
            return []
        tasks = [str(task["name"]) for task in self._config.get("tasks", [])]
        tasks = [tasks[i] for i in order_of(entry.order, len(tasks))]
        epochs = int(self._config.get("recipe", {}).get("epochs", 1))
        if entry.event == "done":
            return _found(entry, tasks, epochs)
        if entry.loss is None or entry.task not in tasks or not entry.epoch:  # not finite, or no epoch of this run
            return []
        learned = tasks.index(entry.task) * epochs + entry.epoch - 1
        if learned <= self._learned.get(entry.run, -1):  # a run that went on inside of the epoch tells of it again
            return []
        self._learned[entry.run] = learned
        return [(learned, {"forgetless/loss": entry.loss})]


def _found(run: _Entry, tasks: Sequence[str], epochs: int) -> list[Point]:
    """The figures of a run that is done, after each of its tasks."""
    points: list[Point] = []
    for number, row in enumerate(run.accuracy, 1):
        learned = [each[:number] for each in run.accuracy[:number]]
        scores = zip(tasks, row[:number], strict=False)
        values = {f"forgetless/accuracy/{task}": score for task, score in scores if score is not None}
        with contextlib.suppress(ForgetlessError):  # R lacks an entry
            values["forgetless/average_accuracy"] = metrics.average_accuracy(learned)
            if number > 1:
                values["forgetless/forgetting"] = metrics.forgetting(learned)
        points.append((number * epochs, values))
    if points and run.strength is not None:
        points[-1][1]["forgetless/strength"] = run.strength
    return points


@contextlib.contextmanager
def logged(folders: Sequence[Path], names: Sequence[str]) -> Iterator[list[Logged]]:
    """Every logger for every run directory; closed in the end, whatever happens.

    Raises:
        ForgetlessError: there is no such logger, its package is not installed, or its files cannot be written.
    """
    made = [Logged(folder, name) for folder in folders for name in dict.fromkeys(names)]
    with contextlib.ExitStack() as stack:
        for each in made:
            stack.callback(each.close)
        yield made
