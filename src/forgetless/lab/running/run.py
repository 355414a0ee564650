"""Running an experiment: every method, seed and order once, into a directory that can be continued."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.files.lock import locked
from forgetless.lab.running.experiment import Experiment
from forgetless.lab.running.jobs import Job, Runner, ThisProcess
from forgetless.lab.running.plan import Plan, distinct
from forgetless.lab.running.work import learn_job
from forgetless.learn.position import Progress


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
    resume: bool = False,
    strength: float | str | None = None,
    runner: Runner | None = None,
    on_plan: Callable[[Sequence[Job]], None] | None = None,
    on_progress: Callable[[Job, Progress], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Run several experiments, each into its folder of `out`, as one queue of jobs.

    Args:
        experiments: folder → experiment.
        names: the methods by name; None for each experiment's own.
        seeds: see `run`.
        out: the run directory. A lock in it keeps other processes from writing there at the same time.
        orders: how many orders of the tasks: the experiment's own, and others, each decided by its number alone. With
            more than one, row and column i of R are the task learned i-th, whichever it was.
        resume: continue an unfinished run directory. Without it one is refused; a finished one is just read.
        strength: λ of the methods that take one; "auto" to hold back most of the movement of each task's training, for
            the methods that anchor weights; "search" to find one for every task by stability decay, "rise" to look
            above a first λ that is accepted as well; None for each method's own, or the one that the experiment tunes.
        runner: what does the jobs; None for this process. Where several processes make this call (torchrun), the one
            that leads returns what all found, and only there are the two functions called; the others return nothing.
        on_plan: called once with the jobs that are to be done.
        on_progress: called with a job and its `Progress`.

    Returns:
        Folder → content of its `results.json`.

    Raises:
        ForgetlessError: an unknown method, a method or seed twice, a strength that is negative, not finite or for no
            method, or an `out` that is in use, or holds something else, another experiment or an unfinished one.
            Nothing is written then. Also what a run raises.
        KeyboardInterrupt: Ctrl-C. Finished runs are in `results.json`, interrupted ones in their checkpoints.
    """
    if orders < 1:
        raise ForgetlessError(f"orders must be at least 1, not {orders}.")
    runner, out = ThisProcess() if runner is None else runner, Path(out)
    works = {
        folder: functools.partial(learn_job, experiment, strength, out / folder)
        for folder, experiment in experiments.items()
    }
    if not runner.leads:
        runner.serve(works)
        return {}

    plans = {
        folder: Plan(experiment, names, seeds, orders, out / folder, strength)
        for folder, experiment in experiments.items()
    }
    if not any(plan.missing for plan in plans.values()):
        list(runner.run({}, [], lambda job, progress: None))  # those that do not lead learn that there is nothing to do
        if resume:
            with contextlib.suppress(ForgetlessError), locked(out):  # it may be in use, or not ours to write
                files.tidied(out)
        return {folder: plan.directory.results for folder, plan in plans.items()}
    with locked(out):
        files.tidied(out)
        for plan in plans.values():
            plan.look()  # again: another process may have finished in between
        jobs = _jobs(plans, seeds)
        if not resume:
            _refuse_unfinished(plans, jobs, out)
        for plan in plans.values():
            if plan.missing:
                plan.start(runner.threads)
        if on_plan is not None:
            on_plan(jobs)

        def tell(job: Job, progress: Progress) -> None:
            plans[job.folder].log(job, progress)
            if on_progress is not None:
                on_progress(job, progress)

        for job, found in runner.run({folder: works[folder] for folder in {job.folder for job in jobs}}, jobs, tell):
            plans[job.folder].directory.add(found)
            plans[job.folder].directory.log("done", **found)
            if (page := experiments[job.folder].page) is not None:
                page(plans[job.folder].directory.path)
    return {folder: plan.directory.results for folder, plan in plans.items()}


def _jobs(plans: Mapping[str, Plan], seeds: Sequence[int]) -> list[Job]:
    """What is missing, seed by seed."""
    return [
        Job(folder, *each)
        for seed in distinct(seeds, "seed")
        for folder, plan in plans.items()
        for each in plan.missing
        if each[1] == seed
    ]


def _refuse_unfinished(plans: Mapping[str, Plan], jobs: Sequence[Job], out: Path) -> None:
    if jobs and any(plan.directory.started for plan in plans.values()):
        whole = sum(len(plan.planned) for plan in plans.values())
        raise ForgetlessError(
            f"{out} is unfinished: {whole - len(jobs)} of {whole} runs are done; "
            "add --resume to continue it, or choose another --out."
        )
