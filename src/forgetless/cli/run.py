"""`forgetless run NAME`: an experiment by its name, each with its own options and those that every run has."""

from __future__ import annotations

import inspect
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from forgetless.cli.parts import settings as own
from forgetless.cli.parts.output import AsJson, Log, print_json
from forgetless.errors import ForgetlessError

if TYPE_CHECKING:
    from forgetless.lab.experiments.parts.settings import Settings
    from forgetless.lab.running.experiment import Comparison
    from forgetless.lab.running.jobs import Job, Runner
    from forgetless.learn.position import Progress


class _Experiments(TyperGroup):
    """The experiments as commands; the list is imported when it is asked for."""

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
    """Run an experiment: a stream of tasks, learned in order by one method after another.

    ```
    forgetless run demo --out runs/demo
    forgetless run demo --out runs/strong --method mas --strength 10 --seeds 3
    forgetless run demo --help
    ```
    """


def _command(name: str, kind: type[Settings]) -> Any:
    """The command of an experiment: an option for every setting, then those that every run has."""
    options = list(own.options(kind))

    def command(**given: Any) -> None:
        _run(name, {each.name: given.pop(each.name) for each in options}, **given)

    common = list(inspect.signature(_run, eval_str=True).parameters.values())[2:]
    command.__signature__ = inspect.Signature([*options, *common])  # type: ignore[attr-defined]
    command.__doc__ = own.described(kind)
    host = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    host.command(name)(command)
    return typer.main.get_command(host)


def _run(
    name: str,
    options: dict[str, Any],
    *,
    out: Annotated[Path, typer.Option(help="The run directory; made if it does not exist.", show_default=False)],
    method: Annotated[
        list[str] | None,
        typer.Option(help="A method; repeat it to compare, join two by + to compose. [default: the experiment's]"),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds to run each method with.")] = 1,
    seed: Annotated[int, typer.Option(help="The first seed.")] = 0,
    orders: Annotated[int, typer.Option(min=1, help="How many orders of the tasks to run each seed with.")] = 1,
    processes: Annotated[
        int,
        typer.Option(
            min=0,
            help="How many runs at a time; of several, each has one thread and one GPU. 0 is one per core.",
        ),
    ] = 1,
    strength: Annotated[
        str | None,
        typer.Option(
            help="λ of the methods that take one; 'auto' holds back most of each task's movement, 'search' tries "
            "several λ on each task, 'rise' larger ones as well. [default: the experiment's]"
        ),
    ] = None,
    log: Log = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a run that was stopped.")] = False,
    as_json: AsJson = False,
) -> None:
    from forgetless.cli.parts.progress import watched
    from forgetless.lab import experiments, results
    from forgetless.lab.running.experiment import Comparison, Suite
    from forgetless.lab.running.logged import logged
    from forgetless.lab.running.run import run_all

    settings, runner = experiments.create(name, **options), _runner(processes)
    settings.refuse_methods(method or ())
    try:
        experiment = settings.build()
        if isinstance(experiment, Comparison):
            if strength is not None or orders != 1 or log:
                raise ForgetlessError(f"{name} has no tasks: leave out --strength, --orders and --log.")
            _compare(experiment, method or None, range(seed, seed + seeds), out, resume, runner, as_json)
            return
        parts = experiment.experiments if isinstance(experiment, Suite) else {"": experiment}
        folders = [out / folder for folder in parts] if runner.leads else []
        with watched() as watcher, logged(folders, log or ()) as loggers:

            def progressed(job: Job, progress: Progress) -> None:
                watcher.progress(job, progress)
                for each in loggers:
                    each.update()

            found = run_all(
                parts,
                method or None,
                range(seed, seed + seeds),
                out,
                orders=orders,
                resume=resume,
                strength=_strength(strength),
                runner=runner,
                on_plan=watcher.plan,
                on_progress=progressed,
            )
    except KeyboardInterrupt as interrupt:
        if runner.leads:
            typer.echo(f"forgetless: {_how_to_continue(out)}", err=True)
        raise typer.Exit(130) from interrupt
    if not runner.leads:
        return
    if as_json:
        print_json(found if isinstance(experiment, Suite) else found[""])
    elif isinstance(experiment, Suite):
        known = results.parts(out)  # with their configs, which tell how much data it was
        typer.echo(experiment.table({folder: known[folder] for folder in found}))
        typer.echo(f"\nresults: {out}/*/results.json\npages:   {out}/*/report.html\nagain:   forgetless report {out}")
    else:
        _show(found[""], out)


def _compare(
    experiment: Comparison,
    names: list[str] | None,
    seeds: Sequence[int],
    out: Path,
    resume: bool,
    runner: Runner,
    as_json: bool,
) -> None:
    """Run variants of a network and show what they came to."""
    from forgetless.cli.parts.progress import watched

    with watched() as watcher:
        found = experiment.run(
            names,
            seeds,
            out,
            resume=resume,
            runner=runner,
            on_plan=watcher.plan,
            on_progress=watcher.progress,
        )
    if runner.leads:
        shown = json.dumps(found, indent=2) if as_json else experiment.table(found)
        files = f"results: {out / 'results.json'}\npage:    {out / 'report.html'}"
        typer.echo(shown if as_json else f"{shown}\n\n{files}")


def _runner(processes: int) -> Runner:
    """What does the jobs: torchrun's processes, some of our own, or this one."""
    from forgetless.lab.running.jobs import ThisProcess
    from forgetless.lab.running.processes import Processes
    from forgetless.lab.running.torchrun import Torchrun

    group = Torchrun.join()
    if group is not None and processes != 1:
        raise ForgetlessError(f"torchrun started {group.size} processes, which do a run each: leave out --processes.")
    if group is not None:
        return group
    return ThisProcess() if processes == 1 else Processes(processes or _cores())


def _cores() -> int:
    """The processors that this process may use, or all where the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _strength(given: str | None) -> float | str | None:
    try:
        return None if given is None else float(given)
    except ValueError:
        return given  # "auto", "search", "rise"; anything else is refused by the run


def _how_to_continue(out: Path) -> str:
    if not [*out.glob("config.json"), *out.glob("*/config.json")]:
        return "stopped before anything was written."
    if os.environ.get("WORLD_SIZE", "1") != "1":
        return "stopped; what was learned is kept. Continue with the same torchrun command and --resume."
    again = ["forgetless", *sys.argv[1:]]
    again += [] if "--resume" in again else ["--resume"]
    return f"stopped; what was learned is kept. Continue with: {shlex.join(again)}"


def _show(found: dict[str, Any], out: Path) -> None:
    from rich.console import Console

    from forgetless.lab.report import table

    Console().print(table(found))
    typer.echo(f"\nresults: {out / 'results.json'}\npage:    {out / 'report.html'}")
