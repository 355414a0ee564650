"""`forgetless watch RUN`: how far a run is, from outside."""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forgetless.cli.parts.output import AsJson, print_json

if TYPE_CHECKING:
    from forgetless.lab.running.followed import Followed, Follower
    from forgetless.lab.running.jobs import Job

_EVERY = 1.0  # seconds
_NUMBERS = ("loss", "average", "forgetting", "drift", "λ")


def watch(
    run: Annotated[Path, typer.Argument(help="A run directory, while it is written to or later.", show_default=False)],
    once: Annotated[bool, typer.Option("--once", help="Show it once instead of following it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Follow a run that another process has started: what is learned, how well, and how long the rest will take.

    ```
    forgetless watch runs/demo
    forgetless watch runs/demo --once
    ```

    Shown are the average accuracy and the forgetting of the tasks so far, in percent, the distance of the weights from
    the start (drift) and the strength of the protection (λ). Nothing in RUN is written or locked; Ctrl-C ends the
    watching and not the run. It ends by itself when the run does. Where stdout is no terminal, such as a pipe or a
    file, every change is a line of text.
    """
    from rich.console import Console, Group
    from rich.live import Live

    from forgetless.lab.running.followed import Follower, directories, in_use

    folders = directories(run)
    followers = [Follower(folder) for folder in folders]
    for each in followers:
        each.update()
    if as_json:
        print_json({"in use": in_use(run), "directories": [each.facts() for each in followers]})
        return

    def shown() -> Group:
        alive = in_use(run)
        return Group(*(_table(each, alive) for each in followers))

    console = Console()
    if once:
        console.print(shown())
        return
    if not console.is_terminal:
        names = [folder.name if len(followers) > 1 else "" for folder in folders]
        for line in _lines(run, dict(zip(names, followers, strict=True))):
            typer.echo(line)
        return
    with Live(shown(), console=console, auto_refresh=False) as live:
        while in_use(run):
            time.sleep(_EVERY)
            for each in followers:
                each.update()
            live.update(shown(), refresh=True)


def _lines(run: Path, followers: Mapping[str, Follower]) -> Iterator[str]:
    """What changes, a line each, and at last how all of it stands; ends early where nobody reads on."""
    from forgetless.lab.running.followed import in_use

    said: dict[tuple[str, Job], str] = {}
    alive = True
    while alive:
        alive = in_use(run)  # asked before the last look, so that nothing is missed
        for folder, each in followers.items():
            each.update()
            for followed in each.jobs.values():
                line = _line(folder, followed, each)
                if followed.stage != "waiting" and said.get((folder, followed.job)) != line:
                    said[folder, followed.job] = line
                    yield line
        if alive:
            _wait()
    yield from (_state(each, alive) for each in followers.values())


def _line(folder: str, run: Followed, follower: Follower) -> str:
    names = zip(_NUMBERS, _figures(run), strict=True)
    where = f"{folder}: " * bool(folder)
    return ", ".join(
        [f"{where}{run.job.label}: {_doing(run, follower)}", *(f"{name} {each}" for name, each in names if each)]
    )


def _wait() -> None:
    """Wait for the next look; a pipe that nobody reads any more is told at once, not with the next line."""
    watched = select.poll() if hasattr(select, "poll") else None  # Windows has none
    if watched is None:
        time.sleep(_EVERY)
        return
    watched.register(sys.stdout.fileno(), 0)
    if watched.poll(1000 * _EVERY):
        raise BrokenPipeError


def _state(follower: Follower, alive: bool) -> str:
    left = follower.left()
    state = "running" if alive else "done" if follower.share >= 1 else "stopped; continue it with --resume"
    more = f", about {timedelta(seconds=round(left))} left" if alive and left is not None else ""
    return f"{follower.experiment}: {follower.share:.0%}, {state}{more}"


def _table(follower: Follower, alive: bool) -> Any:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(_state(follower, alive), style="bold"), title_justify="left", box=None, pad_edge=False)
    for column in ("run", "done", "", *_NUMBERS):
        table.add_column(column, justify="right" if column in _NUMBERS else "left")
    for run in follower.jobs.values():
        bar = ProgressBar(total=1.0, completed=run.share, width=20)
        table.add_row(Text(run.job.label), bar, Text(_doing(run, follower)), *_figures(run))
    return table


def _doing(run: Followed, follower: Follower) -> str:
    if run.stage != "running":
        return run.stage
    epoch = f", epoch {run.epoch} of {follower.epochs}" if run.phase == "train" else f", {run.phase}"
    return f"task {run.task} of {follower.tasks}, {run.name}{epoch}"


def _figures(run: Followed) -> list[str]:
    loss = None if run.stage == "done" else run.loss
    shown = (
        (loss, 1, ".3g"),
        (run.average, 100, ".1f"),
        (run.forgetting, 100, ".1f"),
        (run.drift, 1, ".3g"),
        (run.strength, 1, ".3g"),
    )
    return ["" if value is None else f"{scale * value:{form}}" for value, scale, form in shown]
