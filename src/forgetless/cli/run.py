"""`forgetless run NAME`: an experiment by its name, each with its own options and those that every run has."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from forgetless.errors import ForgetlessError

if TYPE_CHECKING:
    from forgetless.lab.running.parallel import Job
    from forgetless.lab.running.run import Experiment, Suite
    from forgetless.learn.train import Progress


class _Experiments(TyperGroup):
    """The experiments as commands; what there is, is looked up when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        from forgetless.lab.experiments import EXPERIMENTS

        return list(EXPERIMENTS)

    def get_command(self, ctx: Any, name: str) -> Any:
        from forgetless.lab.experiments import EXPERIMENTS

        return _command(name, EXPERIMENTS[name]) if name in EXPERIMENTS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            from forgetless.model.parameters import listing

            raise ForgetlessError(
                f"there is no experiment {args[0]!r}; there are {listing(self.list_commands(ctx), most=99)}."
            )
        return super().resolve_command(ctx, args)


app = typer.Typer(cls=_Experiments, no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")


@app.callback()
def _root() -> None:
    """Run an experiment: a stream of tasks, learned in order by one method after another."""


def _command(name: str, experiment: Callable[..., Experiment | Suite]) -> Any:
    """The command of an experiment: its parameters become options, its docstring their help."""
    own = list(_own_options(experiment))

    def command(**given: Any) -> None:
        options = {parameter.name: given.pop(parameter.name) for parameter in own}
        _run(name, options, **given)

    common = list(inspect.signature(_run, eval_str=True).parameters.values())[2:]
    command.__signature__ = inspect.Signature([*own, *common])  # type: ignore[attr-defined]
    command.__doc__ = (inspect.getdoc(experiment) or "").split("\n\nArgs:")[0].split("\n\nRaises:")[0]
    host = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    host.command(name)(command)
    return typer.main.get_command(host)


def _own_options(experiment: Callable[..., Experiment | Suite]) -> Iterator[inspect.Parameter]:
    """The parameters of an experiment as options; one without a default is a path, or paths, an option repeated."""
    helps = dict(re.findall(r"^ +(\w+): (.+?)\.?$", experiment.__doc__ or "", re.MULTILINE))
    for parameter in inspect.signature(experiment).parameters.values():
        name, about = parameter.name, helps.get(parameter.name)
        if parameter.default is parameter.empty:
            several = "Sequence" in str(parameter.annotation)
            option = typer.Option(f"--{name.removesuffix('s') if several else name}", help=about, show_default=False)
            kind: Any = list[Path] if several else Path
            default: Any = parameter.empty
        elif isinstance(parameter.default, bool):
            option = typer.Option(f"--{name.replace('_', '-')}", help=about)  # a flag, without a --no-… of its own
            kind, default = bool, parameter.default
        else:
            option = typer.Option(f"--{name.replace('_', '-')}", help=about)
            kind, default = type(parameter.default), parameter.default
        yield inspect.Parameter(name, parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])


def _run(
    name: str,
    options: dict[str, Any],
    *,
    out: Annotated[Path, typer.Option(help="The run directory; made if it is not there.", show_default=False)],
    method: Annotated[
        list[str] | None,
        typer.Option(help="How to learn; repeat it to compare, join two by + to compose. [default: the experiment's]"),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds to run each method with.")] = 1,
    seed: Annotated[int, typer.Option(help="The first seed.")] = 0,
    orders: Annotated[int, typer.Option(min=1, help="How many orders of the tasks to run each seed with.")] = 1,
    processes: Annotated[
        int,
        typer.Option(
            min=0, help="How many runs at a time; of several, each has one thread and one GPU. 0 is one per core."
        ),
    ] = 1,
    strength: Annotated[
        str | None,
        typer.Option(help="λ of the methods that take one, or 'auto' to find it. [default: each one's own]"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a run that was stopped.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON instead of the table.")] = False,
) -> None:
    from forgetless.lab import experiments
    from forgetless.lab.running.run import Suite, run_all
    from forgetless.lab.running.team import Team
    from forgetless.learn import methods

    team = Team.join()
    for each in method or ():
        methods.create(each)  # refuse an unknown one before reading data
    try:
        experiment = experiments.create(name, **options)
        parts = experiment.experiments if isinstance(experiment, Suite) else {"": experiment}
        with _watched() as watcher:
            found = run_all(
                parts,
                method or None,
                range(seed, seed + seeds),
                out,
                orders=orders,
                processes=processes or _cores(),
                resume=resume,
                strength=_strength(strength),
                team=team,
                on_plan=watcher.plan,
                on_progress=watcher.progress,
            )
    except KeyboardInterrupt as interrupt:
        if team is None or team.rank == 0:
            typer.echo(f"forgetless: {_how_to_continue(out, team is not None)}", err=True)
        raise typer.Exit(130) from interrupt
    if team is not None and team.rank:
        return
    if as_json:
        typer.echo(json.dumps(found if isinstance(experiment, Suite) else found[""], indent=2))
    elif isinstance(experiment, Suite):
        typer.echo(experiment.table(found))
        typer.echo(f"\nresults: {out}/*/results.json")
    else:
        _show(found[""], out)


def _cores() -> int:
    """The processors that this process may use; all of the machine's where the system does not tell."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _strength(given: str | None) -> float | str | None:
    try:
        return None if given is None else float(given)
    except ValueError:
        return given  # "auto", or what the run refuses


def _how_to_continue(out: Path, torchrun: bool) -> str:
    if not [*out.glob("config.json"), *out.glob("*/config.json")]:
        return "stopped before anything was written."
    if torchrun:
        return "stopped; what was learned is kept. Continue with the same torchrun command and --resume."
    again = ["forgetless", *sys.argv[1:]]
    again += [] if "--resume" in again else ["--resume"]
    return f"stopped; what was learned is kept. Continue with: {shlex.join(again)}"


def _show(found: dict[str, Any], out: Path) -> None:
    from rich.console import Console

    from forgetless.lab.report import table

    Console().print(table(found))
    typer.echo(f"\nresults: {out / 'results.json'}\npage:    {out / 'report.html'}")


class _Lines:
    """A line per task and per try of a search, for what is no terminal, with the share of all that is done."""

    def __init__(self) -> None:
        self._tally = _Tally()
        self._last: dict[Job, tuple[int, str]] = {}

    def plan(self, jobs: Sequence[Job]) -> None:
        self._tally.plan(jobs)

    def progress(self, job: Job, progress: Progress) -> None:
        self._tally.progress(job, progress)
        if self._last.get(job) != (progress.task, progress.name):
            self._last[job] = (progress.task, progress.name)
            where = f"task {progress.task} of {progress.tasks}, {progress.name}"
            typer.echo(f"[{self._tally}] {job.label}: {where}", err=True)


class _Bars:
    """A bar for all jobs with an estimate of the time left, and one for each that is under way."""

    def __init__(self, bars: Any) -> None:
        self._bars, self._tally = bars, _Tally()
        self._rows: dict[Job, Any] = {}
        self._total: Any = None

    def plan(self, jobs: Sequence[Job]) -> None:
        self._tally.plan(jobs)
        if len(jobs) > 1:
            self._total = self._bars.add_task(f"{len(jobs)} runs", total=1.0, doing="")

    def progress(self, job: Job, progress: Progress) -> None:
        self._tally.progress(job, progress)
        if job not in self._rows:
            self._rows[job] = self._bars.add_task(job.label, total=progress.tasks, doing="")
        completed = _completed(progress)
        over = completed >= progress.tasks
        self._bars.update(self._rows[job], completed=completed, doing=_doing(progress), visible=not over)
        if self._total is not None:
            self._bars.update(self._total, completed=self._tally.share, doing=str(self._tally))


class _Tally:
    """How much of all jobs is done, and how long the rest will take at the pace so far."""

    def __init__(self) -> None:
        self._jobs, self._start = 1, time.monotonic()
        self._done: dict[Job, float] = {}
        self._first: dict[Job, float] = {}

    def plan(self, jobs: Sequence[Job]) -> None:
        self._jobs, self._start = max(1, len(jobs)), time.monotonic()

    def progress(self, job: Job, progress: Progress) -> None:
        self._done[job] = _completed(progress) / progress.tasks
        self._first.setdefault(job, self._done[job])  # done by an earlier process, and no measure of this one's pace

    @property
    def share(self) -> float:
        return min(1.0, sum(self._done.values()) / self._jobs)

    def __str__(self) -> str:
        earned = sum(self._done.values()) - sum(self._first.values())
        if earned <= 0:
            return f"{self.share:.0%}"
        left = (time.monotonic() - self._start) * (self._jobs - sum(self._done.values())) / earned
        return f"{self.share:.0%}, {timedelta(seconds=max(0, round(left)))} left"


@contextlib.contextmanager
def _watched() -> Iterator[_Lines | _Bars]:
    """What shows progress: bars on a terminal, else lines."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Bars(*columns, TextColumn("{task.fields[doing]}", style="dim"), console=console) as bars:
        yield _Bars(bars)


def _completed(progress: Progress) -> float:
    """How many tasks are done, the one being learned in part."""
    learned = {"search": 0.0, "warm_start": 0.0, "train": progress.step / max(1, progress.steps)}
    return progress.task - 1 + learned.get(progress.phase, 1.0)


def _doing(progress: Progress) -> str:
    words = {"search": "searching", "warm_start": "warming up the head", "train": f"epoch {progress.epoch}"}
    doing = words.get(progress.phase, progress.phase)
    return f"{progress.name}: {doing}"
