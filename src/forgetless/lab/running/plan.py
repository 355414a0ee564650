"""What is to be run, and where: an experiment in its run directory, with its config and the command that repeats it."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.lab.running.directory import RunDirectory, key
from forgetless.lab.running.environment import environment
from forgetless.lab.running.experiment import Experiment
from forgetless.lab.running.jobs import Job
from forgetless.lab.running.work import RISE, SEARCH
from forgetless.learn import methods, metrics
from forgetless.learn.position import Progress
from forgetless.learn.task import Task
from forgetless.model.parameters import listing

_T = TypeVar("_T")


class Plan:
    """What is planned for an experiment in its run directory, and what is missing there. Making one writes nothing.

    Args:
        experiment: what to run.
        names: the methods by name; None for the experiment's own.
        seeds: each decides the network at the start, the order of samples and the heads' first weights.
        orders: how many orders of the tasks.
        out: the run directory.
        strength: see `run_all`.

    Raises:
        ForgetlessError: see `run_all`.
    """

    def __init__(
        self,
        experiment: Experiment,
        names: Sequence[str] | None,
        seeds: Sequence[int],
        orders: int,
        out: Path,
        strength: float | str | None,
    ) -> None:
        self.experiment, self.seeds, self.orders, self.strength = experiment, seeds, orders, strength
        self.names = distinct(experiment.methods if names is None else names, "method")
        for name in self.names:
            (experiment.online or experiment).create(name)  # refuse it before anything is written
        _check_strength(experiment, self.names, strength)
        self.planned = [
            (name, seed, order) for seed in distinct(seeds, "seed") for order in range(orders) for name in self.names
        ]
        empty = {"experiment": experiment.name, "tasks": [task.name for task in experiment.tasks], "runs": []}
        scores = dict.fromkeys(task.objective.score for task in experiment.tasks)
        scored = {} if "accuracy" in scores else {"score": ", ".join(scores)}
        self._empty = {**empty, **scored, "environment": {}}
        self._out, self._config = out, _config(experiment, strength)
        self._logged: dict[Job, tuple[int, str, int]] = {}
        self.look()

    def look(self) -> None:
        """Read the run directory, and see what is missing."""
        self.directory = RunDirectory(self._out, self._config, self._empty)
        done = set(map(key, self.directory.results["runs"]))
        self.missing = [each for each in self.planned if each not in done]

    def start(self, threads: int) -> None:
        """Write what is there before the first run; a run will have so many threads."""
        known = {**environment(), "threads": threads, "command": self._command()}
        self.directory.start(known)
        self.directory.log("start", runs=[list(each) for each in self.missing], environment=known)

    def _command(self) -> str:
        """The command that gives all that is in the directory: what this call plans, and what earlier ones have run."""
        runs = map(key, self.directory.results["runs"])
        names, seeds, orders = zip(*runs, *self.planned, strict=True)
        words = ["forgetless", "run", self.experiment.name, *self.experiment.arguments]
        words += [word for name in dict.fromkeys(names) for word in ("--method", name)]
        if self.strength is not None:
            words += ["--strength", self.strength if isinstance(self.strength, str) else _written(self.strength)]
        words += ["--seed", str(min(seeds)), "--seeds", str(max(seeds) - min(seeds) + 1)]
        words += ["--out", f"runs/{self.experiment.name}"]
        words += ["--orders", str(max(orders) + 1)] if max(orders) else []
        return shlex.join(words)

    def log(self, job: Job, progress: Progress) -> None:
        """Write a line to the log, once a phase and once an epoch, not once a step."""
        here = (progress.task, progress.phase, progress.epoch)
        if self._logged.get(job) != here:
            self._logged[job] = here
            loss = None if math.isnan(progress.loss) else round(progress.loss, 6)
            facts = {"task": progress.name, "epoch": progress.epoch, "loss": loss}
            facts |= _so_far(progress)
            self.directory.log(progress.phase, method=job.method, seed=job.seed, order=job.order, **facts)


def _so_far(progress: Progress) -> dict[str, float]:
    """The average over the tasks before the present one, and the forgetting of them."""
    learned = [row[: progress.task - 1] for row in progress.accuracy[: progress.task - 1]]
    found: dict[str, float] = {}
    with contextlib.suppress(ForgetlessError):  # none is learned, or R lacks an entry
        found["average"] = metrics.average_accuracy(learned)
        if len(learned) > 1:
            found["forgetting"] = metrics.forgetting(learned)
    return found


def _written(number: float) -> str:
    """A number as it is, so that the command is that of the same run."""
    return repr(number).removesuffix(".0")


def distinct(values: Sequence[_T], what: str) -> list[_T]:
    """The values, each of which must be there once.

    Raises:
        ForgetlessError: none, or one twice.
    """
    if not values or len(set(values)) < len(values):
        raise ForgetlessError(f"a run needs one {what} or more, each once, not {listing(map(str, values))}.")
    return list(values)


def _check_strength(experiment: Experiment, names: Sequence[str], strength: float | str | None) -> None:
    """Refuse a strength that makes no sense, before anything is written."""
    if strength is None:
        return
    if experiment.online is not None:
        raise ForgetlessError(f"the experiment {experiment.name!r} takes no strength; it has an option of its own.")
    takers = [name for name in names if methods.create(name).strength is not None]
    if not takers:
        raise ForgetlessError(f"none of the methods {listing(names)} takes a strength.")
    if isinstance(strength, str):
        if strength not in ("auto", SEARCH, RISE):
            raise ForgetlessError(f"the strength must be a number, 'auto', 'search' or 'rise', not {strength!r}.")
        if strength == "auto" and not any(methods.create(name).automatic for name in takers):
            raise ForgetlessError(f"none of the methods {listing(names)} finds its strength by itself; give a number.")
    elif not (math.isfinite(strength) and strength >= 0):
        raise ForgetlessError(f"the strength must be zero or positive and finite, not {strength}.")


def _config(experiment: Experiment, strength: float | str | None) -> dict[str, Any]:
    """Everything that defines what is run; only methods and seeds may be added later."""
    return {
        "experiment": experiment.name,
        "strength": strength,
        "tasks": [
            {
                "name": task.name,
                **task.objective.settings(),
                "train": len(task.train[1]),
                "test": len(task.test[1]),
                "sha256": _hash(task),
            }
            for task in experiment.tasks
        ],
        "recipe": (experiment.online or experiment.recipe).settings(),
        **({"methods": experiment.settings} if experiment.settings else {}),
        **({} if experiment.tuning is None else {"tuning": dataclasses.asdict(experiment.tuning)}),
        **experiment.config,
    }


def _hash(task: Task) -> str:
    hashes = "".join(files.sha256(tensor) for part in (task.train, task.test) for tensor in part)
    return hashlib.sha256(hashes.encode()).hexdigest()[:16]
