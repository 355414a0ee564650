"""The score over the sequence: on average over the tasks learned so far, then task by task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from forgetless.lab.report.shown import Shown
from forgetless.lab.results import Estimate, Summary


def section(shown: Shown) -> dict[str, Any] | None:
    """A small figure for the average and for each task."""
    return {"panels": _panels(shown.summary)}


@dataclass(frozen=True)
class Panel:
    """One small figure of the sequence: a title and, per method, a value after every task."""

    title: str
    lines: tuple[tuple[Estimate | None, ...], ...]


def _panels(summary: Summary) -> list[Panel]:
    average = Panel("all tasks so far", tuple(method.so_far for method in summary.methods))
    of_tasks = (
        Panel(
            f"{j + 1} · {name}" if summary.places == summary.tasks else name,
            tuple(tuple(row[j] if i >= j else None for i, row in enumerate(m.matrix)) for m in summary.methods),
        )
        for j, name in enumerate(summary.places)
    )
    return [average, *of_tasks]
