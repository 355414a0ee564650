"""Charts of streams that were learned in one pass: accuracy over time, λ over time, and the gates."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from forgetless.lab.report.chart import Chart, Points
from forgetless.lab.report.shown import Shown


def section(shown: Shown) -> dict[str, Any] | None:
    """The charts; None where no stream was learned in one pass."""
    found = charts(shown.results)
    return {"charts": found} if found else None


def charts(results: Mapping[str, Any]) -> list[Chart]:
    """The charts of the content of a `results.json`; none where no stream was learned in one pass.

    Accuracy is the mean over seeds, the rest is of each method's first seed.
    """
    runs: dict[str, list[Mapping[str, Any]]] = {}
    for run in results["runs"]:
        if "online" in run:
            runs.setdefault(run["method"], []).append(run["online"])
    if not runs:
        return []
    lines = tuple((method, _anytime(each)) for method, each in runs.items())
    return [Chart("accuracy on the tasks so far, percent", "batches", lines, percent=True), *_gated(runs)]


def _anytime(runs: Sequence[Mapping[str, Any]]) -> Points:
    """Batch → the average accuracy on the tasks that had begun, over the runs."""
    found: dict[int, list[float]] = {}
    for run in runs:
        for at, scores in run["looks"]:
            found.setdefault(at, []).append(statistics.fmean(scores))
    return [(at, statistics.fmean(each)) for at, each in sorted(found.items())]


def _gated(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[Chart]:
    for method, (first, *_) in runs.items():
        groups, trace, gates = (first.get(name) or [] for name in ("groups", "lambdas", "gates"))
        if trace:
            lines = tuple((group, [(row[0], row[1 + number]) for row in trace]) for number, group in enumerate(groups))
            yield Chart(f"{method}: λ of each group", "batches", lines)
        if gates:
            shares = tuple((group, _shares(counts)) for group, counts in zip(groups, gates[-1], strict=True))
            yield Chart(f"{method}: gates after the last task, percent of the weights", "gate", shares, percent=True)


def _shares(counts: Sequence[int]) -> Points:
    """The middle of each bin → its share of all."""
    whole = sum(counts) or 1
    return [((number + 0.5) / len(counts), count / whole) for number, count in enumerate(counts)]
