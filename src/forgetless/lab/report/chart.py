"""`Chart`: a small figure of lines over one axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
