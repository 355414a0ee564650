"""Charts of streams that were learned in one pass: accuracy over time, λ over time, and the gates."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# A chart's drawing area, in the SVG's own units.
_LEFT, _RIGHT, _TOP, _BOTTOM = 42.0, 272.0, 12.0, 138.0

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    """A small figure: lines over one axis.

    Attributes:
        title: what it shows.
        across: what the horizontal axis is.
        lines: label and points `(x, y)` of each.
        percent: whether heights are shares.
    """

    title: str
    across: str
    lines: tuple[tuple[str, Points], ...]
    percent: bool = False

    left, right, top, bottom = _LEFT, _RIGHT, _TOP, _BOTTOM

    def path(self, points: Points) -> str:
        """An SVG path through the points."""
        (low, high), (first, last) = self._ends(1), self._ends(0)
        placed = [
            (
                _LEFT + (x - first) / (last - first or 1) * (_RIGHT - _LEFT),
                _BOTTOM - (y - low) / (high - low or 1) * (_BOTTOM - _TOP),
            )
            for x, y in points
        ]
        return "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in placed)

    def heights(self) -> tuple[tuple[float, str], ...]:
        """The least and the greatest height: where each lies, and its label."""
        low, high = self._ends(1)
        shown = [f"{100 * each:.0f}" if self.percent else f"{each:.3g}" for each in (low, high)]
        return (_BOTTOM, shown[0]), (_TOP, shown[1])

    def ends(self) -> tuple[tuple[float, str], ...]:
        """The ends of the horizontal axis, likewise."""
        first, last = self._ends(0)
        return (_LEFT, f"{first:g}"), (_RIGHT, f"{last:g}")

    def _ends(self, axis: int) -> tuple[float, float]:
        values = [point[axis] for _, points in self.lines for point in points]
        return (0.0 if self.percent and axis else min(values)), max(values)


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
