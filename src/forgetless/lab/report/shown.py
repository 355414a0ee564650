"""`Shown`: everything that the sections of a run's page are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from forgetless.lab.report.axis import Axis
from forgetless.lab.results import Compared, MethodSummary, Summary, column
from forgetless.lab.traces import Trace, Traces

Traced = list[tuple[int, MethodSummary, Trace]]


@dataclass(frozen=True)
class Shown:
    """What a page shows.

    Attributes:
        results: the content of a `results.json`.
        summary: the same, summed up by method.
        axis: what accuracies and positions in the sequence look like.
        traces: what the runs left on their way; of a run directory without, none.
        compared: one method minus every other on the same seeds, if there are several.
    """

    results: Mapping[str, Any]
    summary: Summary
    axis: Axis
    traces: Traces
    compared: Compared | None = None

    def traced(self) -> Traced:
        """The methods that left a trace: number, summary and the trace of the first seed."""
        names = [method for method, _ in dict.fromkeys(map(column, self.results["runs"]))]
        first = self.traces.first()
        pairs = zip(names, self.summary.methods, strict=True)
        return [(number, each, first[name]) for number, (name, each) in enumerate(pairs) if name in first]
