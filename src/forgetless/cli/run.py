"""`forgetless run NAME`: an experiment by its name, each with its own options and those that every run has."""

from __future__ import annotations

import contextlib
import inspect
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from forgetless.errors import ForgetlessError

if TYPE_CHECKING:
    from forgetless.studies.run import Experiment
    from forgetless.train import Progress

    Watcher = Callable[[str, int, Progress], None]


class _Experiments(TyperGroup):
    """The experiments as commands; what there is, is looked up when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        from forgetless.studies import EXPERIMENTS

        return list(EXPERIMENTS)

    def get_command(self, ctx: Any, name: str) -> Any:
        from forgetless.studies import EXPERIMENTS

        return _command(name, EXPERIMENTS[name]) if name in EXPERIMENTS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            from forgetless.parameters import listing

            raise ForgetlessError(
                f"there is no experiment {args[0]!r}; there are {listing(self.list_commands(ctx), most=99)}."
            )
        return super().resolve_command(ctx, args)


app = typer.Typer(cls=_Experiments, no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")


@app.callback()
def _root() -> None:
    """Run an experiment: a stream of tasks, learned in order by one method after another."""


def _command(name: str, experiment: Callable[..., Experiment]) -> Any:
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


def _own_options(experiment: Callable[..., Experiment]) -> Iterator[inspect.Parameter]:
    """The parameters of an experiment as options; one without a default is a path, or paths, an option repeated."""
    helps = dict(re.findall(r"^ +(\w+): (.+?)\.?$", experiment.__doc__ or "", re.MULTILINE))
    for parameter in inspect.signature(experiment).parameters.values():
        name, about = parameter.name, helps.get(parameter.name)
        if parameter.default is parameter.empty:
            several = "Sequence" in str(parameter.annotation)
            option = typer.Option(f"--{name.removesuffix('s') if several else name}", help=about, show_default=False)
            kind, default = list[Path] if several else Path, parameter.empty
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
    method: Annotated[list[str], typer.Option(help="How to learn; repeat it to compare.")] = [  # noqa: B006
        "finetune",
        "frozen",
        "mas",
    ],
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds to run each method with.")] = 1,
    seed: Annotated[int, typer.Option(help="The first seed.")] = 0,
    strength: Annotated[
        float | None, typer.Option(help="λ of the methods that take one. [default: each one's own]")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a run that was stopped.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON instead of the table.")] = False,
) -> None:
    from forgetless import methods, studies
    from forgetless.studies.run import run

    for each in method:
        methods.create(each)  # refuse an unknown one before reading data
    try:
        experiment = studies.create(name, **options)
        with _watched() as watcher:
            found = run(
                experiment,
                method,
                range(seed, seed + seeds),
                out,
                resume=resume,
                strength=strength,
                on_progress=watcher,
            )
    except KeyboardInterrupt as interrupt:
        typer.echo(f"forgetless: {_how_to_continue(out)}", err=True)
        raise typer.Exit(130) from interrupt
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    _show(found, out)


def _how_to_continue(out: Path) -> str:
    if not (out / "config.json").exists():
        return "stopped before anything was written."
    again = ["forgetless", *sys.argv[1:]]
    again += [] if "--resume" in again else ["--resume"]
    return f"stopped; what was learned is kept. Continue with: {shlex.join(again)}"


def _show(found: dict[str, Any], out: Path) -> None:
    from rich.console import Console

    from forgetless.report import table

    Console().print(table(found))
    typer.echo(f"\nresults: {out / 'results.json'}\npage:    {out / 'report.html'}")


@contextlib.contextmanager
def _watched() -> Iterator[Watcher]:
    """What shows progress: a bar per run on a terminal, else a line per task."""
    from rich.console import Console
    from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _line_per_task()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    rows: dict[tuple[str, int], TaskID] = {}
    with Bars(*columns, TextColumn("{task.fields[doing]}", style="dim"), console=console) as bars:

        def watch(method: str, seed: int, progress: Progress) -> None:
            if (method, seed) not in rows:
                for row in rows.values():
                    bars.update(row, completed=progress.tasks, doing="")
                rows[method, seed] = bars.add_task(f"{method}, seed {seed}", total=progress.tasks, doing="")
            bars.update(rows[method, seed], completed=_completed(progress), doing=_doing(progress))

        yield watch
        for row in rows.values():
            bars.update(row, completed=bars.tasks[row].total, doing="")


def _line_per_task() -> Watcher:
    last: tuple[str, int, int] | None = None

    def watch(method: str, seed: int, progress: Progress) -> None:
        nonlocal last
        if (method, seed, progress.task) != last:
            last = method, seed, progress.task
            typer.echo(f"{method}, seed {seed}: task {progress.task} of {progress.tasks}, {progress.name}", err=True)

    return watch


def _completed(progress: Progress) -> float:
    """How many tasks are done, the one being learned in part."""
    learned = {"warm_start": 0.0, "train": progress.step / max(1, progress.steps)}
    return progress.task - 1 + learned.get(progress.phase, 1.0)


def _doing(progress: Progress) -> str:
    doing = {"warm_start": "warming up the head", "train": f"epoch {progress.epoch}"}.get(
        progress.phase, progress.phase
    )
    return f"{progress.name}: {doing}"
