"""An experiment, and running it: every method, seed and order once, into a directory that can be continued."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import platform
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

import forgetless
from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.lab.running import parallel
from forgetless.lab.running.directory import RunDirectory
from forgetless.lab.running.parallel import Job, Tell
from forgetless.lab.running.search import learn_stream
from forgetless.lab.running.team import Team
from forgetless.lab.running.tuning import Tuning
from forgetless.learn import methods
from forgetless.learn.heads import MultiHead
from forgetless.learn.train import Method, Progress, Recipe, Task, derive, learn, permutation
from forgetless.model.parameters import listing
from forgetless.protect.strength.stability_decay import Trial

_T = TypeVar("_T")
AUTO = "auto"  # a strength found for every task by stability decay


@dataclass(frozen=True)
class Experiment:
    """A claim about learning, ready to run. What is to run in several processes must be picklable.

    Attributes:
        name: what it is called on the command line and in every result.
        tasks: the stream, in order.
        network: seed → the network at the start, the same for every method.
        recipe: how each task is learned.
        config: what else defines it, JSON-able; the tasks and the recipe are added.
        arguments: the words after `forgetless run NAME` that give the same experiment.
        create: what makes the methods, called as `forgetless.learn.methods.create`.
        tuning: how one strength for all is found where none is given; None to take each method's own.
        methods: the ones to compare where nobody says which.
        settings: method → its settings here, where they are not its own ("strength" among them).
    """

    name: str
    tasks: Sequence[Task]
    network: Callable[[int], MultiHead]
    recipe: Recipe
    config: Mapping[str, Any] = field(default_factory=dict)
    arguments: Sequence[str] = ()
    create: Callable[..., Method] = methods.create
    tuning: Tuning | None = None
    methods: Sequence[str] = ("finetune", "frozen", "mas")
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Suite:
    """Experiments that belong together and are shown as one.

    Attributes:
        name: what it is called on the command line.
        experiments: the folder of each in the run directory → the experiment.
        table: what is shown in the end: folder → content of `results.json`, to text.
    """

    name: str
    experiments: Mapping[str, Experiment]
    table: Callable[[Mapping[str, Mapping[str, Any]]], str]


def run(
    experiment: Experiment,
    names: Sequence[str] | None,
    seeds: Sequence[int],
    out: str | Path,
    **options: Any,
) -> dict[str, Any]:
    """Run every method with every seed and order of tasks. What `out` holds already is kept and not run again.

    Args:
        experiment: what to run.
        names: the methods by name; None for the experiment's own.
        seeds: each decides the network at the start, the order of samples and the heads' first weights.
        out: the run directory; made if it does not exist.
        options: those of `run_all`.

    Returns:
        The content of `results.json`.

    Raises:
        ForgetlessError: as `run_all`.
        KeyboardInterrupt: Ctrl-C. Finished runs are in `results.json`, interrupted ones in their checkpoints.
    """
    return run_all({"": experiment}, names, seeds, out, **options)[""]


def run_all(
    experiments: Mapping[str, Experiment],
    names: Sequence[str] | None,
    seeds: Sequence[int],
    out: str | Path,
    *,
    orders: int = 1,
    processes: int = 1,
    resume: bool = False,
    strength: float | str | None = None,
    team: Team | None = None,
    on_plan: Callable[[Sequence[Job]], None] | None = None,
    on_progress: Callable[[Job, Progress], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Run several experiments, each into its folder of `out`, as one queue of jobs.

    Args:
        experiments: folder → experiment.
        names: the methods by name; None for each experiment's own.
        seeds: see `run`.
        out: the run directory.
        orders: how many orders of the tasks: the experiment's own, and others, each decided by its number alone. With
            more than one, row and column i of R are the task learned i-th, whichever it was.
        processes: how many jobs to run at a time. With more than one, each has a process of its own, of one thread.
        resume: continue an unfinished run directory. Without it one is refused; a finished one is just read.
        strength: λ of the methods that take one; "auto" to find one for every task by stability decay; None for each
            method's own.
        team: the processes that torchrun started, all of which make this call: they share the jobs. The first one
            returns what all found, and only there are the two functions called; the others return nothing.
        on_plan: called once with the jobs that are to be done.
        on_progress: called with a job and its `Progress`.

    Returns:
        Folder → content of its `results.json`.

    Raises:
        ForgetlessError: an unknown method, a method or seed twice, a strength that is negative, not finite or
            for no method, or an `out` that holds something else, another experiment or an unfinished one. Nothing
            is written then. Also what a run raises.
        KeyboardInterrupt: Ctrl-C. Finished runs are in `results.json`, interrupted ones in their checkpoints.
    """
    if orders < 1 or processes < 1:
        raise ForgetlessError(f"orders and processes must be at least 1, not {orders} and {processes}.")
    if team is not None and processes > 1:
        raise ForgetlessError(f"torchrun started {team.size} processes, which do a run each: leave out --processes.")
    works = {
        folder: functools.partial(learn_job, experiment, strength, Path(out) / folder)
        for folder, experiment in experiments.items()
    }
    if team is not None and team.rank:
        team.serve(works)
        return {}
    places = {
        folder: _Place(experiment, names, seeds, orders, Path(out) / folder, strength)
        for folder, experiment in experiments.items()
    }
    jobs = [
        Job(folder, *each)
        for seed in _distinct(seeds, "seed")
        for folder, place in places.items()
        for each in place.missing
        if each[1] == seed
    ]
    planned = sum(len(place.planned) for place in places.values())
    if jobs and not resume and any(place.directory.started for place in places.values()):
        raise ForgetlessError(
            f"{out} is unfinished: {planned - len(jobs)} of {planned} runs are done; "
            "add --resume to continue it, or choose another --out."
        )
    for place in places.values():
        if place.missing:
            place.start(processes)
    if on_plan is not None:
        on_plan(jobs)

    def tell(job: Job, progress: Progress) -> None:
        places[job.folder].log(job, progress)
        if on_progress is not None:
            on_progress(job, progress)

    works = {folder: work for folder, work in works.items() if places[folder].missing}
    finished = parallel.done(works, jobs, processes, tell) if team is None else team.done(works, jobs, tell)
    for job, found in finished:
        places[job.folder].directory.add(found)
        places[job.folder].directory.log("done", **found)
    return {folder: place.directory.results for folder, place in places.items()}


class _Place:
    """An experiment in its directory: what is planned there, and what is missing."""

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
        self.names = _distinct(experiment.methods if names is None else names, "method")
        _check_strength(self.names, strength)
        for name in self.names:
            experiment.create(name)  # refuse what this experiment cannot learn with, before anything is written
        self.planned = [
            (name, seed, order) for seed in _distinct(seeds, "seed") for order in range(orders) for name in self.names
        ]
        empty = {"experiment": experiment.name, "tasks": [task.name for task in experiment.tasks], "runs": []}
        self.directory = RunDirectory(out, _config(experiment, strength), {**empty, "environment": {}})
        done = {(each["method"], each["seed"], each.get("order", 0)) for each in self.directory.results["runs"]}
        self.missing = [each for each in self.planned if each not in done]
        self._logged: dict[Job, tuple[int, str, int]] = {}

    def start(self, processes: int) -> None:
        """Write what is there before the first run."""
        known = {**environment(), "command": self._command()}
        if processes > 1:
            known["threads"] = 1
        self.directory.results["environment"] = known
        self.directory.start()
        self.directory.log("start", runs=[list(each) for each in self.missing], environment=known)

    def _command(self) -> str:
        """What gives all that is in the directory: what this call plans, and what earlier ones have run."""
        runs = [(run["method"], run["seed"], run.get("order", 0)) for run in self.directory.results["runs"]]
        names, seeds, orders = zip(*runs, *self.planned, strict=True)
        words = ["forgetless", "run", self.experiment.name, *self.experiment.arguments]
        words += [word for name in dict.fromkeys(names) for word in ("--method", name)]
        if self.strength is not None:
            words += ["--strength", self.strength if isinstance(self.strength, str) else f"{self.strength:g}"]
        words += ["--seed", str(min(seeds)), "--seeds", str(max(seeds) - min(seeds) + 1)]
        words += ["--out", f"runs/{self.experiment.name}"]
        words += ["--orders", str(max(orders) + 1)] if max(orders) else []
        return shlex.join(words)

    def log(self, job: Job, progress: Progress) -> None:
        """A line once a phase and once an epoch, not once a step."""
        here = (progress.task, progress.phase, progress.epoch)
        if self._logged.get(job) != here:
            self._logged[job] = here
            loss = None if math.isnan(progress.loss) else round(progress.loss, 6)
            facts = {"task": progress.name, "epoch": progress.epoch, "loss": loss}
            self.directory.log(progress.phase, method=job.method, seed=job.seed, order=job.order, **facts)


def learn_job(
    experiment: Experiment, strength: float | str | None, folder: Path, job: Job, tell: Tell
) -> dict[str, Any]:
    """Do one job; gives its entry in `results.json`."""
    method = _method(experiment, job.method, strength)
    if strength is None and experiment.tuning is not None and method.strength is not None:
        parts = (experiment.network, experiment.tasks, experiment.recipe)
        tried = _tells_trials(tell, experiment.tasks)
        found_strength = experiment.tuning.strength(method, *parts, folder / "strengths", tried)
        method = _method(experiment, job.method, found_strength)
    order = order_of(job.order, len(experiment.tasks))
    tasks = [experiment.tasks[i] for i in order]
    found: dict[str, Any] = {"method": job.method, "seed": job.seed, "settings": method.settings()}
    if job.order:
        found["order"] = job.order
        found["learned"] = [task.name for task in tasks]
    model = experiment.network(job.seed)
    if strength == AUTO and method.strength is not None:
        return {**found, **_searched(experiment, model, tasks, method, folder, job, tell)}
    checkpoint = folder / "checkpoints" / f"{job.stem}.safetensors"
    outcome = learn(model, tasks, method, experiment.recipe, seed=job.seed, checkpoint=checkpoint, on_progress=tell)
    seconds = {phase: round(seconds, 3) for phase, seconds in outcome.seconds.items()}
    return {**found, "strength": method.strength, "accuracy": outcome.accuracy, "seconds": seconds}


def _searched(
    experiment: Experiment,
    model: MultiHead,
    tasks: Sequence[Task],
    method: Method,
    folder: Path,
    job: Job,
    tell: Tell,
) -> dict[str, Any]:
    """A stream with a strength found for every task; with what that cost."""
    start = time.perf_counter()
    accuracy, decided = learn_stream(
        model,
        tasks,
        method,
        experiment.recipe,
        (experiment.recipe.lr,),
        seed=job.seed,
        folder=folder / "searches" / job.stem,
        on_trial=_tells_trials(tell, tasks),
    )
    return {
        "strength": float(decided[-1]) if decided[-1] is not None else method.strength,
        "strengths": [None if each is None else float(each) for each in decided],
        "trials": sum(len(each.trials) for each in decided if each is not None),
        "accuracy": accuracy,
        "seconds": {"search and train": round(time.perf_counter() - start, 3)},
    }


def _tells_trials(tell: Tell, tasks: Sequence[Task]) -> Callable[[int, Trial], None]:
    """What reports the trials of a search as progress of the task that they are for."""

    def tried(position: int, each: Trial) -> None:
        name = f"{tasks[position].name}: λ = {each.strength:g} gave {each.accuracy:.1%}"
        tell(Progress(position + 1, len(tasks), name, "search", 0, 0, 1, math.nan))

    return tried


def order_of(number: int, tasks: int) -> list[int]:
    """Order `number` of so many tasks: 0 is the given one, any other a permutation decided by its number alone."""
    return permutation(tasks, derive(number, "order")).tolist() if number else list(range(tasks))


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


def _check_strength(names: Sequence[str], strength: float | str | None) -> None:
    """Refuse unknown methods and a strength that makes no sense, before anything is written."""
    takers = [name for name in names if methods.create(name).strength is not None]
    if strength is None:
        return
    if not takers:
        raise ForgetlessError(f"none of the methods {listing(names)} takes a strength.")
    if isinstance(strength, str):
        if strength != AUTO:
            raise ForgetlessError(f"the strength must be a number or 'auto', not {strength!r}.")
    elif not (math.isfinite(strength) and strength >= 0):
        raise ForgetlessError(f"the strength must be zero or positive and finite, not {strength}.")


def _method(experiment: Experiment, name: str, strength: float | str | None) -> Method:
    settings = dict(experiment.settings.get(name, {}))
    own = settings.pop("strength", None)
    given = own if strength is None or isinstance(strength, str) else strength
    return experiment.create(name, None if methods.create(name).strength is None else given, **settings)


def _config(experiment: Experiment, strength: float | str | None) -> dict[str, Any]:
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
        **({"settings": experiment.settings} if experiment.settings else {}),
        **({} if experiment.tuning is None else {"tuning": dataclasses.asdict(experiment.tuning)}),
        **experiment.config,
    }


def _hash(task: Task) -> str:
    hashes = "".join(files.sha256(tensor) for part in (task.train, task.test) for tensor in part)
    return hashlib.sha256(hashes.encode()).hexdigest()[:16]
