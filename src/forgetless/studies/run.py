"""An experiment, and running it: every method and seed once, into a run directory that can be continued."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import platform
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

import forgetless
from forgetless import files, methods
from forgetless.errors import ForgetlessError
from forgetless.heads import MultiHead
from forgetless.parameters import listing
from forgetless.studies.directory import RunDirectory
from forgetless.train import Method, Progress, Recipe, Task, learn

_T = TypeVar("_T")


@dataclass(frozen=True)
class Experiment:
    """A claim about learning, ready to run.

    Attributes:
        name: what it is called on the command line and in every result.
        tasks: the stream, in order.
        network: seed → the network at the start, the same for every method.
        recipe: how each task is learned.
        config: what else defines it, JSON-able; the tasks and the recipe are added.
        arguments: the words after `forgetless run NAME` that give the same experiment.
    """

    name: str
    tasks: Sequence[Task]
    network: Callable[[int], MultiHead]
    recipe: Recipe
    config: Mapping[str, Any] = field(default_factory=dict)
    arguments: Sequence[str] = ()


def run(
    experiment: Experiment,
    names: Sequence[str],
    seeds: Sequence[int],
    out: str | Path,
    *,
    resume: bool = False,
    strength: float | None = None,
    on_progress: Callable[[str, int, Progress], None] | None = None,
) -> dict[str, Any]:
    """Run every method with every seed. What `out` holds already is kept and not run again.

    Args:
        experiment: what to run.
        names: the methods by name.
        seeds: each decides the network at the start, the order of samples and the heads' first weights.
        out: the run directory; made if it does not exist.
        resume: continue an unfinished run directory. Without it one is refused; a finished one is just read.
        strength: λ of the methods that take one; None for each method's own.
        on_progress: called with method, seed and `Progress`.

    Returns:
        The content of `results.json`.

    Raises:
        ForgetlessError: an unknown method, a method or seed twice, a strength that is negative, not finite or
            for no method, or an `out` that holds something else, another experiment or an unfinished one. Nothing
            is written then.
        KeyboardInterrupt: Ctrl-C. Finished runs are in `results.json`, the interrupted one in its checkpoint.
    """
    planned = [(name, seed) for seed in _distinct(seeds, "seed") for name in _distinct(names, "method")]
    _check_strength(names, strength)
    empty = {"experiment": experiment.name, "tasks": [task.name for task in experiment.tasks], "runs": []}
    directory = RunDirectory(Path(out), _config(experiment, strength), {**empty, "environment": {}})
    done = {(each["method"], each["seed"]) for each in directory.results["runs"]}
    missing = [pair for pair in planned if pair not in done]
    if not missing:
        return directory.results
    if directory.started and not resume:
        raise ForgetlessError(
            f"{out} is unfinished: {len(planned) - len(missing)} of {len(planned)} runs are done; "
            "add --resume to continue it, or choose another --out."
        )
    directory.results["environment"] = {**environment(), "command": _command(experiment, names, seeds, strength)}
    directory.start()
    directory.log("start", runs=missing, environment=directory.results["environment"])
    for name, seed in missing:
        _run_one(experiment, _method(name, strength), seed, directory, on_progress)
    return directory.results


def _run_one(
    experiment: Experiment,
    method: Method,
    seed: int,
    directory: RunDirectory,
    on_progress: Callable[[str, int, Progress], None] | None,
) -> None:
    logged = None

    def tell(progress: Progress) -> None:
        nonlocal logged
        here = (progress.task, progress.phase, progress.epoch)
        if here != logged:  # once a phase and once an epoch, not once a step
            logged = here
            loss = None if math.isnan(progress.loss) else round(progress.loss, 6)
            directory.log(
                progress.phase, method=method.name, seed=seed, task=progress.name, epoch=progress.epoch, loss=loss
            )
        if on_progress is not None:
            on_progress(method.name, seed, progress)

    outcome = learn(
        experiment.network(seed),
        experiment.tasks,
        method,
        experiment.recipe,
        seed=seed,
        checkpoint=directory.checkpoint(method.name, seed),
        on_progress=tell,
    )
    found = {
        "method": method.name,
        "seed": seed,
        "strength": method.strength,
        "accuracy": outcome.accuracy,
        "seconds": {phase: round(seconds, 3) for phase, seconds in outcome.seconds.items()},
    }
    directory.add(found)
    directory.log("done", **found)


def environment() -> dict[str, Any]:
    """What runs ran on: versions and hardware. No names of users, hosts or folders."""
    return {
        "forgetless": forgetless.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _processor(),
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def _distinct(values: Sequence[_T], what: str) -> list[_T]:
    if not values or len(set(values)) < len(values):
        raise ForgetlessError(f"a run needs one {what} or more, each once, not {listing(map(str, values))}.")
    return list(values)


def _check_strength(names: Sequence[str], strength: float | None) -> None:
    """Refuse unknown methods and a strength that makes no sense, before anything is written."""
    takers = [name for name in names if methods.create(name).strength is not None]
    if strength is None:
        return
    if not takers:
        raise ForgetlessError(f"none of the methods {listing(names)} takes a strength.")
    if not (math.isfinite(strength) and strength >= 0):
        raise ForgetlessError(f"the strength must be zero or positive and finite, not {strength}.")


def _method(name: str, strength: float | None) -> Method:
    return methods.create(name, None if methods.create(name).strength is None else strength)


def _config(experiment: Experiment, strength: float | None) -> dict[str, Any]:
    """Everything that defines what is run; only methods and seeds may be added later."""
    return {
        "experiment": experiment.name,
        "strength": strength,
        "tasks": [
            {
                "name": task.name,
                "classes": len(task.classes),
                "train": len(task.train[1]),
                "test": len(task.test[1]),
                "sha256": _hash(task),
            }
            for task in experiment.tasks
        ],
        "recipe": dataclasses.asdict(experiment.recipe),
        **experiment.config,
    }


def _hash(task: Task) -> str:
    hashes = "".join(files.sha256(tensor) for part in (task.train, task.test) for tensor in part)
    return hashlib.sha256(hashes.encode()).hexdigest()[:16]


def _command(experiment: Experiment, names: Sequence[str], seeds: Sequence[int], strength: float | None) -> str:
    words = ["forgetless", "run", experiment.name, *experiment.arguments]
    words += [word for name in names for word in ("--method", name)]
    words += [] if strength is None else ["--strength", f"{strength:g}"]
    words += ["--seed", str(seeds[0]), "--seeds", str(len(seeds)), "--out", f"runs/{experiment.name}"]
    return shlex.join(words)
