"""Doing one job: a method learns the tasks with a seed, in an order."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from forgetless import files
from forgetless.lab.kept import KEPT, Kept, kept
from forgetless.lab.running.experiment import Experiment
from forgetless.lab.running.jobs import Found, Job, Tell
from forgetless.lab.running.online import Online
from forgetless.lab.running.search import Search, learn_stream
from forgetless.lab.running.watched import Watched
from forgetless.lab.traces import Recorder, albums
from forgetless.learn import methods
from forgetless.learn.method import Method
from forgetless.learn.network import Network
from forgetless.learn.position import Progress
from forgetless.learn.seeding import derive, permutation
from forgetless.learn.task import Task
from forgetless.learn.train import learn
from forgetless.protect.anchor import Anchor
from forgetless.protect.strength.stability_decay import Trial

#: A strength found for every task by stability decay; RISE looks above a first strength that is accepted, too.
SEARCH, RISE = "search", "rise"


def learn_job(experiment: Experiment, strength: float | str | None, folder: Path, job: Job, tell: Tell) -> Found:
    """Do one job.

    Args:
        experiment: what is run.
        strength: λ of the methods that take one; "auto" to hold back most of the movement, where the method can;
            "search" or "rise" to find one for every task; None for each method's own, or the one that the experiment
            tunes.
        folder: the experiment's run directory.
        job: which run.
        tell: called with its progress.

    Returns:
        Its entry in `results.json`.
    """
    if experiment.online is not None:
        return _streamed(experiment, experiment.online, folder, job, tell)
    method = _method(experiment, job.method, strength)
    if strength is None and experiment.tuning is not None and method.strength is not None:
        parts = (experiment.network, experiment.tasks, experiment.recipe)
        told = _tells_trials(tell, experiment.tasks)
        found_strength = experiment.tuning.strength(method, *parts, folder / "strengths", told)
        method = _method(experiment, job.method, found_strength)
    order = order_of(job.order, len(experiment.tasks))
    tasks = [experiment.tasks[i] for i in order]
    found: dict[str, Any] = {"method": job.method, "seed": job.seed, "settings": method.settings()}
    if job.order:
        found["order"] = job.order
        found["learned"] = [task.name for task in tasks]
    model = experiment.network(job.seed)
    if strength in (SEARCH, RISE) and method.strength is not None:
        how = Search() if experiment.tuning is None else experiment.tuning.search
        how = dataclasses.replace(how, rise=how.rise or strength == RISE)
        found |= _searched(experiment, model, tasks, method, how, folder, job, tell)
        _keep(experiment, model, {}, folder, job)
        return found
    checkpoint = folder / "checkpoints" / f"{job.stem}.safetensors"
    watched = None if experiment.look is None else Watched(method, experiment.look)
    learned = method if watched is None else watched
    seen = _recorded(experiment, model, learned.anchors, tasks, folder, job, experiment.recipe.worth, tell)
    outcome = learn(model, tasks, learned, experiment.recipe, seed=job.seed, checkpoint=checkpoint, on_progress=seen)
    seconds = {phase: round(seconds, 3) for phase, seconds in outcome.seconds.items()}
    found |= {"strength": method.found_strength(), "accuracy": outcome.accuracy, "seconds": seconds}
    if watched is not None:
        found["figures"] = watched.figures()
    _keep(experiment, model, {} if watched is None else watched.tensors(), folder, job)
    return found


def _streamed(experiment: Experiment, online: Online, folder: Path, job: Job, tell: Tell) -> Found:
    """Learn the stream in one pass, at the method's own rate."""
    order = order_of(job.order, len(experiment.tasks))
    tasks = [experiment.tasks[i] for i in order]
    settings = experiment.settings.get(job.method, {})
    found: dict[str, Any] = {"method": job.method, "seed": job.seed, "settings": dict(settings), "strength": None}
    if job.order:
        found |= {"order": job.order, "learned": [task.name for task in tasks]}
    rate = online.rate(job.method, settings, experiment.network, experiment.tasks, folder / "rates")
    checkpoint = folder / "checkpoints" / f"{job.stem}.safetensors"
    model, learner = experiment.network(job.seed), online.create(job.method, **settings)
    seen = _recorded(experiment, model, learner.anchors, tasks, folder, job, online.worth, tell)
    found |= online.learn(learner, model, tasks, rate, job.seed, checkpoint, seen)
    _keep(experiment, model, {}, folder, job)
    return found


def _recorded(
    experiment: Experiment,
    model: Network,
    anchors: Callable[[], Sequence[Anchor]],
    tasks: Sequence[Task],
    folder: Path,
    job: Job,
    worth: Callable[[int], float],
    tell: Tell,
) -> Tell:
    """`tell`, with a trace of the run kept beside it."""
    shown = albums(experiment.tasks, experiment.written)
    return Recorder(model, anchors, tasks, shown, folder, job.stem, worth).beside(tell)


def _keep(experiment: Experiment, model: Network, seen: Mapping[str, Tensor], folder: Path, job: Job) -> None:
    if experiment.keep is not None:
        tensors, facts = experiment.keep(model, seen)
        run = dataclasses.asdict(Kept(job.method, job.seed, job.order))
        files.write_tensors(kept(folder, job.stem), tensors, KEPT, {"run": run, **facts})


def _searched(
    experiment: Experiment,
    model: Network,
    tasks: Sequence[Task],
    method: Method,
    how: Search,
    folder: Path,
    job: Job,
    tell: Tell,
) -> dict[str, Any]:
    """Learn the stream with a strength found for every task; with the number of trials."""
    start = time.perf_counter()
    accuracy, decided = learn_stream(
        model,
        tasks,
        method,
        experiment.recipe,
        how,
        seed=job.seed,
        folder=folder / "searches" / job.stem,
        on_trial=_tells_trials(tell, tasks),
    )
    return {
        "strength": float(decided[-1]) if decided[-1] is not None else method.found_strength(),
        "strengths": [None if each is None else float(each) for each in decided],
        "trials": sum(len(each.trials) for each in decided if each is not None),
        "rise": how.rise,
        "accuracy": accuracy,
        "seconds": {"search and train": round(time.perf_counter() - start, 3)},
    }


def _tells_trials(tell: Tell, tasks: Sequence[Task]) -> Callable[[int, Trial], None]:
    """A function that reports the trials of a search as progress of the task that they are for."""

    def told(position: int, each: Trial) -> None:
        name = f"{tasks[position].name}: λ = {each.strength:g} gave {each.accuracy:.1%}"
        tell(Progress(position + 1, len(tasks), name, "search", 0, 0, 1, math.nan))

    return told


def order_of(number: int, tasks: int) -> list[int]:
    """Order `number` of so many tasks: 0 is the given one; any other is a permutation that the number alone decides."""
    return permutation(tasks, derive(number, "order")).tolist() if number else list(range(tasks))


def _method(experiment: Experiment, name: str, strength: float | str | None) -> Method:
    settings = dict(experiment.settings.get(name, {}))
    own = settings.pop("strength", None)
    known = methods.create(name)
    if known.strength is None:
        return experiment.create(name, None, **settings)
    if strength in (SEARCH, RISE):  # a number to begin with
        strength = known.strength if own is None else own
    elif strength is None or (strength == "auto" and not known.automatic):
        strength = own
    return experiment.create(name, strength, **settings)
