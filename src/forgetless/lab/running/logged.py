"""What the log of a run directory says, for loggers: `--log csv`, `tensorboard`, `wandb`, `trackio`.

The log is the source, and what was passed on is remembered beside it. So a logger may be added to a run later, when it
is continued or done, and gets all of it; a run that is continued goes on where it was.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.integrations import loggers
from forgetless.lab.running.jobs import Job
from forgetless.lab.running.journal import Journal
from forgetless.lab.running.work import order_of
from forgetless.learn import metrics

Point = tuple[int, dict[str, float]]


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
            self._journal = Journal(self._run, int(files.read_json(self._read)["read"]) if self._read.exists() else 0)
        before = self._journal.at
        for entry in self._journal.more():
            for step, values in self._points(entry):
                self._logger(entry).log(step, values)
        if self._journal.at != before:
            self._folder.mkdir(parents=True, exist_ok=True)
            files.write_json(self._read, {"read": self._journal.at})

    def close(self) -> None:
        """Pass on the rest, and close the logger's files."""
        try:
            self.update()
        finally:
            for each in self._open.values():
                each.close()
            self._open.clear()

    def _logger(self, entry: Mapping[str, Any]) -> loggers.Logger:
        run = Job("", entry["method"], entry.get("seed", 0), entry.get("order", 0)).stem
        if run not in self._open:
            project = str(self._config.get("experiment", "forgetless"))
            self._open[run] = loggers.create(self._name, self._folder, run, project=project)
        return self._open[run]

    def _points(self, entry: Mapping[str, Any]) -> list[Point]:
        if entry.get("event") not in ("train", "done"):
            return []
        tasks = [str(task["name"]) for task in self._config.get("tasks", [])]
        tasks = [tasks[i] for i in order_of(entry.get("order", 0), len(tasks))]
        epochs = int(self._config.get("recipe", {}).get("epochs", 1))
        if entry["event"] == "done":
            return _found(entry, tasks, epochs)
        if entry.get("loss") is None:  # not finite
            return []
        learned = tasks.index(entry["task"]) * epochs + entry["epoch"] - 1
        return [(learned, {"forgetless/loss": float(entry["loss"])})]


def _found(run: Mapping[str, Any], tasks: Sequence[str], epochs: int) -> list[Point]:
    """The figures of a run that is done, after each of its tasks."""
    points: list[Point] = []
    for number, row in enumerate(run["accuracy"], 1):
        learned = [each[:number] for each in run["accuracy"][:number]]
        scores = zip(tasks, row[:number], strict=False)
        values = {f"forgetless/accuracy/{task}": float(score) for task, score in scores if score is not None}
        with contextlib.suppress(ForgetlessError):  # R lacks an entry
            values["forgetless/average_accuracy"] = metrics.average_accuracy(learned)
            if number > 1:
                values["forgetless/forgetting"] = metrics.forgetting(learned)
        points.append((number * epochs, values))
    if points and run.get("strength") is not None:
        points[-1][1]["forgetless/strength"] = float(run["strength"])
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
