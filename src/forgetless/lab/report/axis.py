"""What accuracies and positions in the sequence look like on a run's page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from forgetless.lab.results import Estimate, Summary

# A panel's drawing area, in the SVG's own units.
_LEFT, _RIGHT, _TOP, _BOTTOM = 34.0, 272.0, 12.0, 138.0


@dataclass(frozen=True)
class Axis:
    """What accuracies and positions in the sequence look like on the page.

    Attributes:
        low: the least accuracy shown, a multiple of 0.1.
        high: the greatest.
        tasks: how many tasks there are.
    """

    low: float
    high: float
    tasks: int

    left, right, top, bottom = _LEFT, _RIGHT, _TOP, _BOTTOM

    def x(self, task: int) -> float:
        """Where the moment after learning `task` (from 0) lies; a single task lies in the middle."""
        share = task / (self.tasks - 1) if self.tasks > 1 else 0.5
        return round(_LEFT + 8 + share * (_RIGHT - _LEFT - 16), 1)

    def y(self, accuracy: float) -> float:
        """The height of an accuracy."""
        return round(_BOTTOM - self.share(accuracy) * (_BOTTOM - _TOP), 1)

    def share(self, accuracy: float) -> float:
        """Where an accuracy lies between the least (0) and the greatest (1) shown."""
        return round(min(1.0, max(0.0, (accuracy - self.low) / (self.high - self.low))), 3)

    def ticks(self) -> list[float]:
        """Round accuracies to label, three to six of them."""
        tenths = round(10 * (self.high - self.low))
        every = next(step for step in (1, 2, 5) if tenths / step <= 5)
        return [self.low + tenth / 10 for tenth in range(0, tenths + 1, every)]

    def numbers(self) -> list[int]:
        """The tasks (from 0) to number, at most about ten."""
        return list(range(0, self.tasks, math.ceil(self.tasks / 10)))

    def line(self, values: Sequence[Estimate | None]) -> str:
        """An SVG path through the means; unknown values are gaps."""
        known = [None if value is None else (self.x(i), self.y(value.mean)) for i, value in enumerate(values)]
        moves = zip([None, *known], known, strict=False)
        return " ".join(f"{'L' if before else 'M'}{now[0]} {now[1]}" for before, now in moves if now)

    def band(self, values: Sequence[Estimate | None]) -> str:
        """An SVG path around mean ± sd; empty if no value has an sd."""
        known = [(i, value.mean, value.sd) for i, value in enumerate(values) if value and value.sd is not None]
        upper = [f"{self.x(i)} {self.y(mean + sd)}" for i, mean, sd in known]
        lower = [f"{self.x(i)} {self.y(mean - sd)}" for i, mean, sd in reversed(known)]
        return f"M{' L'.join(upper + lower)} Z" if known else ""


def axis_of(summary: Summary) -> Axis:
    """The axis that shows every accuracy of a summary."""
    means = [entry.mean for method in summary.methods for row in method.matrix for entry in row if entry]
    low, high = min(means, default=0.0), max(means, default=1.0)
    low, high = math.floor(10 * low + 1e-9) / 10, math.ceil(10 * high - 1e-9) / 10
    # At least 20 points, so that noise does not look like a cliff.
    if high - low < 0.2:
        low, high = (low, low + 0.2) if low <= 0.8 else (0.8, 1.0)
    return Axis(low, high, len(summary.tasks))
