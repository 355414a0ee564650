"""What each repair wins back for what it gives up: shares, frontiers, and what they say at the same new skill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Point:
    """A model between base and fine-tuned.

    Attributes:
        setting: of its method.
        kept: the share of the new skill's gain that it keeps: 1 is the fine-tuned model, 0 the base.
        healed: the share of the general loss' rise that is undone: 0 is the fine-tuned model, 1 the base.
        chat: the same share for the base's first choices in its own chat answers.
    """

    setting: float
    kept: float
    healed: float
    chat: float


@dataclass(frozen=True)
class Tuning:
    """One fine-tuning and all its repairs."""

    name: str
    base: Row
    tuned: Row
    rows: Sequence[Row]

    @property
    def measure(self) -> str:
        """What the new skill is counted in."""
        return "target accuracy" if "target accuracy" in self.base else "target loss"

    def point(self, row: Row) -> Point:
        """A row's shares."""

        def share(key: str, start: Row, end: Row) -> float:
            return float((row[key] - start[key]) / (end[key] - start[key]))

        return Point(
            row["setting"],
            share(self.measure, self.base, self.tuned),
            share("general loss", self.tuned, self.base),
            share("chat agreement", self.tuned, self.base),
        )

    def path(self, method: str) -> list[Point]:
        """The points of a method, from the most that is kept on; without the two ends."""
        own = [self.point(row) for row in self.rows if row["method"] == method]
        return sorted(own, key=lambda point: -point.kept)


def tuning(found: Mapping[str, Any]) -> Tuning | None:
    """A file of results; None where its two ends are not there yet."""
    ends = {row["method"]: row for row in found["rows"]}
    if not {"base", "fine-tuned"} <= ends.keys():
        return None
    rows = [row for row in found["rows"] if row["method"] not in ("base", "fine-tuned")]
    return Tuning(found["domain"], ends["base"], ends["fine-tuned"], rows)


def at_least(path: Sequence[Point], kept: float, what: str) -> float:
    """The most of `what` that a method wins back while it keeps that share, along straight lines between its points.

    The line begins at the fine-tuned model, where nothing is won back.
    """
    line = sorted([Point(0, 1, 0, 0), *path], key=lambda point: -point.kept)
    best = max(getattr(point, what) for point in line if point.kept >= kept)
    for above, below in pairwise(line):
        if above.kept >= kept > below.kept:
            part = (above.kept - kept) / (above.kept - below.kept)
            best = max(best, getattr(above, what) + part * (getattr(below, what) - getattr(above, what)))
    return float(best)
