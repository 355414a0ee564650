"""What `forgetless learn` shows: where it is, and in the end what was kept and what was learned."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import typer

#: What a figure is called, and how it is written.
_FIGURES = {
    "old_agreement": ("old data: answers that stayed the same", "{:.1%}"),
    "old_accuracy": ("old data: accuracy", "{:.1%}"),
    "old_similarity": ("old data: cosine of embeddings, before and now", "{:.3f}"),
    "old_perplexity": ("old data: perplexity (lower is better)", "{:.2f}"),
    "new_accuracy": ("new data: accuracy", "{:.1%}"),
    "new_perplexity": ("new data: perplexity (lower is better)", "{:.2f}"),
}


@contextlib.contextmanager
def told() -> Iterator[Callable[[str, int, int], None]]:
    """A function that is told (phase, done, all): a bar on a terminal, else a line at the beginning of a phase."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    phases: dict[str, Any] = {}
    latest = ""

    def line(phase: str, done: int, whole: int) -> None:
        nonlocal latest
        if phase != latest:
            typer.echo(f"{phase} …", err=True)
            latest = phase

    if not console.is_terminal:
        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bars:

        def bar(phase: str, done: int, whole: int) -> None:
            if phase not in phases or done < bars.tasks[phases[phase]].completed:
                phases[phase] = bars.add_task(phase, total=whole)
            bars.update(phases[phase], completed=done, total=whole)

        yield bar


def show(summary: dict[str, Any], out: str) -> None:
    """Print what was kept and what was learned, before and after."""
    from rich.console import Console
    from rich.table import Table

    after = summary["after"]
    table = Table("", "before", *(f"after {method}" for method in after), box=None, pad_edge=False)
    for name, (title, form) in _FIGURES.items():
        columns = [summary["before"].get(name), *(found.get(name) for found in after.values())]
        if any(value is not None for value in columns):
            table.add_row(title, *("–" if value is None else form.format(value) for value in columns))
    Console().print(table)
    for sentence in _strength(summary):
        typer.echo(sentence)
    for note in summary["notes"]:
        typer.echo(f"\n{note}")
    held = [part["held_out"] for part in (summary["old"], summary["new"]) if part]
    typer.echo(f"\njudged on {' old and '.join(map(str, held))} new samples that were held out\nmodel: {out}")


def _strength(summary: dict[str, Any]) -> Iterator[str]:
    """The λ that was used, if there is one."""
    plan = summary["plan"]
    used = summary["after"][plan["method"]]
    value = used["strength"]
    if value is None:
        return
    if plan["strength"] != "auto":
        yield f"λ = {value:.2g}, as given"
    elif plan["hold"] is None or not value:
        yield f"λ = {value:.2g}"
    else:
        yield f"λ = {value:.2g}: {plan['hold']:.0%} of the movement is held back"


def show_estimate(found: dict[str, Any]) -> None:
    """Print what it would take."""
    plan = found["plan"]
    epochs = "one epoch" if plan["epochs"] == 1 else f"{plan['epochs']} epochs"
    typer.echo(
        f"{found['steps']} steps of {plan['batch_size']} samples in {epochs} at --lr {plan['lr']:g}, "
        f"{found['parameters']:,} parameters\n"
        f"about {_time(found['seconds'])} here\n"
        f"{_bytes(found['memory'])} for weights, gradients, the optimizer and protection; "
        f"{_bytes(found['peak'])} in use at most while this was tried"
    )


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def _bytes(count: float) -> str:
    if count < 1e6:
        return f"{count / 1e3:.0f} kB"
    return f"{count / 1e6:.0f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"
