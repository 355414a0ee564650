"""Progress of a checkpoint that is written tensor by tensor: a bar on a terminal, nothing elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import typer


@contextlib.contextmanager
def written() -> Iterator[Callable[[str, int, int], None]]:
    """Gives what `rewrite` calls after each tensor; Ctrl-C ends with exit code 130 and says how to continue."""
    from rich.console import Console
    from rich.progress import Progress

    try:
        console = Console(stderr=True)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
            row = bars.add_task("tensors", total=None)

            def progress(name: str, done: int, of: int) -> None:
                bars.update(row, completed=done, total=of, description=f"tensor {done} of {of}")

            yield progress
    except KeyboardInterrupt as interrupt:
        typer.echo("forgetless: stopped; what is finished is kept for --resume.", err=True)
        raise typer.Exit(130) from interrupt
