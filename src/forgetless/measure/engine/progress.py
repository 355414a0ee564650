"""A progress bar of a measurement, on stderr; silent where stderr is no terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def shown(progress: bool) -> Iterator[Callable[[int], None]]:
    """Yields what to call with the number of samples that were measured."""
    if not progress:
        yield lambda samples: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("importance: {task.completed:.0f} samples"), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("importance", total=None)
        yield lambda samples: bar.advance(task, samples)
