"""What a strength trades: learning the new against keeping the old, where a method ran with several strengths."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from forgetless.lab.report.shown import Shown
from forgetless.lab.results import column, given
from forgetless.learn import metrics

_LEFT, _RIGHT, _TOP, _BOTTOM = 40.0, 410.0, 12.0, 250.0


@dataclass(frozen=True)
class Point:
    """All runs of a method with one strength.

    Attributes:
        given: λ, "auto", "search" or "rise"; None for a method that takes none.
        learned: the mean score of a task right after it was learned.
        kept: the mean score after the last task on all tasks but that one.
    """

    given: float | str | None
    learned: float
    kept: float

    @property
    def strength(self) -> str:
        """What was given, to be shown; empty for a method that takes none."""
        return self.given if isinstance(self.given, str) else "" if self.given is None else f"{self.given:g}"


@dataclass(frozen=True)
class Plane:
    """The figure: points by method, and where they lie.

    Attributes:
        lines: number and label of a method, with its points from the least λ to the largest.
        low: the least and the greatest score shown, across and up.
        high: likewise.
    """

    lines: tuple[tuple[int, str, tuple[Point, ...]], ...]
    low: tuple[float, float]
    high: tuple[float, float]

    left, right, top, bottom = _LEFT, _RIGHT, _TOP, _BOTTOM

    def x(self, learned: float) -> float:
        """Where a score when learned lies."""
        return round(_LEFT + (learned - self.low[0]) / (self.high[0] - self.low[0]) * (_RIGHT - _LEFT), 1)

    def y(self, kept: float) -> float:
        """Where a score that was kept lies."""
        return round(_BOTTOM - (kept - self.low[1]) / (self.high[1] - self.low[1]) * (_BOTTOM - _TOP), 1)

    def ticks(self, axis: int) -> list[float]:
        """Five scores to label."""
        low, high = self.low[axis], self.high[axis]
        return [low + (high - low) * part / 4 for part in range(5)]

    def path(self, points: Sequence[Point]) -> str:
        """An SVG path through the points."""
        return "M" + " L".join(f"{self.x(each.learned)} {self.y(each.kept)}" for each in points)


def section(shown: Shown) -> dict[str, Any] | None:
    """The figure; None where no method ran with two strengths, or a single task leaves nothing to keep."""
    points = _points(shown.results["runs"])
    varied = any(len({each.given for each in found}) > 1 for found in points.values())
    if not varied:
        return None
    columns = dict.fromkeys(map(column, shown.results["runs"]))
    labels = {name: each.method for (name, _), each in zip(columns, shown.summary.methods, strict=True)}
    order = {name: number for number, name in enumerate(labels)}
    lines = tuple((order[name], labels[name], tuple(found)) for name, found in points.items() if found)
    every = [each for _, _, found in lines for each in found]
    low, high = zip(_ends([each.learned for each in every]), _ends([each.kept for each in every]), strict=True)
    return {"plane": Plane(lines, low, high)}


def _points(runs: Sequence[Mapping[str, Any]]) -> dict[str, list[Point]]:
    """Method → its points, by strength."""
    groups: dict[str, dict[float | str | None, list[tuple[float, float, float]]]] = {}
    for run in runs:
        pair = _pair(run["accuracy"])
        if pair is not None:
            strength = -1.0 if run.get("strength") is None else float(run["strength"])
            groups.setdefault(run["method"], {}).setdefault(given(run), []).append((strength, *pair))
    return {name: _in_order(found) for name, found in groups.items()}


def _in_order(found: Mapping[float | str | None, Sequence[tuple[float, float, float]]]) -> list[Point]:
    """The points of a method by λ; where it was found, by the mean of what was found."""
    means = list[tuple[float, Point]]()
    for chosen, each in found.items():
        strength, learned, kept = (math.fsum(values) / len(values) for values in zip(*each, strict=True))
        means.append((strength, Point(chosen, learned, kept)))
    return [point for _, point in sorted(means, key=lambda each: each[0])]


def _pair(accuracy: metrics.Rows) -> tuple[float, float] | None:
    """The mean of R[j,j], and that of R[T,j] over all tasks but the last; None where an entry is missing."""
    learned = [accuracy[j][j] for j in range(len(accuracy))]
    kept = list(accuracy[-1][:-1])
    if not kept or None in learned or None in kept:
        return None
    return math.fsum(filter(None, learned)) / len(learned), math.fsum(filter(None, kept)) / len(kept)


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """Round scores around the values, at least four points apart."""
    low, high = math.floor(50 * min(values)) / 50, math.ceil(50 * max(values)) / 50
    return (low, high) if high - low >= 0.04 else (max(0.0, high - 0.04), max(0.04, high))
