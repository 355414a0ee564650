"""How far the weights moved: over the stream, and layer by layer in the end."""

from __future__ import annotations

from typing import Any

from forgetless.lab.report.chart import Chart, Points
from forgetless.lab.report.layers import grid
from forgetless.lab.report.shown import Shown
from forgetless.lab.traces import Trace


def section(shown: Shown) -> dict[str, Any] | None:
    """A curve for each method, and a row for each layer."""
    traced = [each for each in shown.traced() if each[2].moved]
    if not traced:
        return None
    lines = tuple((method.label, _line(trace)) for _, method, trace in traced)
    chart = Chart("distance from the start", "tasks learned", lines)
    return {"chart": chart, "traced": traced, "grid": grid(traced, lambda layer: layer.drift)}


def _line(trace: Trace) -> Points:
    return [(0.0, 0.0), *((each.at, each.drift) for each in trace.moved)]
