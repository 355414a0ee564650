"""What is protected and what is free: the share of each layer that a method held while the last task was learned."""

from __future__ import annotations

from typing import Any

from forgetless.lab.report.layers import grid
from forgetless.lab.report.shown import Shown


def section(shown: Shown) -> dict[str, Any] | None:
    """A row for each layer, a column for each method; None where nothing can be held, as after a single task."""
    traced = shown.traced()
    found = grid(traced, lambda layer: layer.held)
    if len(shown.summary.tasks) < 2 or all(entry is None for row in found.rows for entry in row.entries):
        return None
    return {"traced": traced, "grid": found}
