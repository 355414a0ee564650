"""What each repair wins back for what it gives up: shares, frontiers, and what they say at the same new skill."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]

#: A method's color, mark and setting's name; the order of tables.
METHODS = {
    "WiSE-FT": ("#000000", "s", "α"),
    "DG-Hard": ("#d55e00", "v", "scale"),
    "importance": ("#0072b2", "o", "s"),
    "importance DG-Hard": ("#56b4e9", "^", "scale"),
    "importance, a mean per weight": ("#009e73", "D", "s"),
    "norms and biases back": ("#882255", "<", "α"),
    "TIES trim": ("#cc79a7", "P", "density"),
    "DARE": ("#999999", "X", "density"),
    "MAS in training": ("#e69f00", "*", "share held"),
}
#: Shares of the new skill's gain at which methods are compared, and what they are compared with.
LEVELS, BESIDE = (0.95, 0.9, 0.8), "WiSE-FT"


@dataclass(frozen=True)
class Point:
    """A model between base and fine-tuned.

    Attributes:
        setting: of its method.
        kept: the share of the new skill's gain that it keeps: 1 is the fine-tuned model, 0 the base.
        won: measure of what was known before → the share of its loss that is undone: 0 is the fine-tuned model, 1 the
            base.
    """

    setting: float
    kept: float
    won: Mapping[str, float]


@dataclass(frozen=True)
class Tuning:
    """One fine-tuning and all its repairs.

    Attributes:
        name: of what was learned.
        base: the row of the model before.
        tuned: the row of the model after.
        rows: of all repairs.
        skill: the measure of what was learned.
        before: the measures of what was known before.
        none: the skill that counts as none kept.
    """

    name: str
    base: Row
    tuned: Row
    rows: Sequence[Row]
    skill: str
    before: tuple[str, ...]
    none: float

    def point(self, row: Row) -> Point:
        """A row's shares."""
        kept = (row[self.skill] - self.none) / (self.tuned[self.skill] - self.none)
        won = {key: (row[key] - self.tuned[key]) / (self.base[key] - self.tuned[key]) for key in self.before}
        return Point(row["setting"], float(kept), won)

    def path(self, method: str) -> list[Point]:
        """The points of a method, from the most that is kept on; without the two ends."""
        return sorted(map(self.point, self.of(method)), key=lambda point: -point.kept)

    def of(self, method: str) -> list[Row]:
        """The rows of a method by its setting."""
        return sorted((row for row in self.rows if row["method"] == method), key=lambda row: float(row["setting"]))


def tuning(
    name: str, rows: Sequence[Row], skill: str, before: tuple[str, ...], none: float | None = None
) -> Tuning | None:
    """The rows of a fine-tuning; None where its two ends are not there yet. `none` is by default the base's skill."""
    ends = {row["method"]: row for row in rows}
    if not {"base", "fine-tuned"} <= ends.keys():
        return None
    rest = [row for row in rows if row["method"] not in ("base", "fine-tuned")]
    base = ends["base"]
    return Tuning(name, base, ends["fine-tuned"], rest, skill, before, base[skill] if none is None else none)


def at_least(path: Sequence[Point], kept: float, what: str) -> float:
    """The most of `what` that a method wins back while it keeps that share, on the upper hull of its points.

    That is the most along the straight lines between any two of them, so that more points never make it less. The
    fine-tuned model, where nothing is won back, is one of the points.
    """
    points = [Point(0, 1, {what: 0}), *path]
    above = [point for point in points if point.kept >= kept]
    below = [point for point in points if point.kept < kept]
    return float(max(_between(one, other, kept, what) for one in above for other in [one, *below]))


def _between(one: Point, other: Point, kept: float, what: str) -> float:
    """What is won back where the line between two points keeps that share; of one point, what it wins back."""
    if other.kept == one.kept:
        return one.won[what]
    part = (one.kept - kept) / (one.kept - other.kept)
    return one.won[what] + part * (other.won[what] - one.won[what])


def shared(tunings: Sequence[Tuning]) -> list[str]:
    """The methods that all fine-tunings have, with the same settings."""
    grids = {method: {tuple(row["setting"] for row in each.of(method)) for each in tunings} for method in METHODS}
    return [method for method, found in grids.items() if len(found) == 1 and found != {()}]


def won(tunings: Sequence[Tuning], method: str, level: float, what: str) -> list[float]:
    """What a method wins back at a level, in percent, for each fine-tuning."""
    return [100 * at_least(each.path(method), level, what) for each in tunings]


def levels(tunings: Sequence[Tuning], what: str, title: str) -> Iterator[str]:
    """A Markdown table: what every method wins back at each level, and how far that is from WiSE-FT."""
    yield f"| won back of {title}, % | " + " | ".join(f"{100 * level:.0f} % kept" for level in LEVELS) + " |"
    yield "|---|" + "---|" * len(LEVELS)
    for method in shared(tunings):
        cells = []
        for level in LEVELS:
            own, other = (won(tunings, each, level, what) for each in (method, BESIDE))
            apart = [mine - theirs for mine, theirs in zip(own, other, strict=True)]
            spread = "" if method == BESIDE else f" ({min(apart):+.0f} … {max(apart):+.0f})"
            cells.append(f"{statistics.fmean(own):.0f}{spread}")
        yield f"| {method} | {' | '.join(cells)} |"


def said(tunings: Sequence[Tuning], what: str, title: str) -> str:
    """A sentence for each level that follows from that table: the two best methods, and how often WiSE-FT is behind."""
    parts = []
    for level in LEVELS:
        found = {method: won(tunings, method, level, what) for method in shared(tunings)}
        first, *others = sorted(found, key=lambda method: -statistics.fmean(found[method]))
        best = f"{100 * level:.0f} % kept by {first} ({statistics.fmean(found[first]):.0f})"
        best += "".join(f", then {each} ({statistics.fmean(found[each]):.0f})" for each in others[:1])
        if first != BESIDE and BESIDE in found:
            ahead = sum(mine > theirs for mine, theirs in zip(found[first], found[BESIDE], strict=True))
            best += f"; {first} is ahead of {BESIDE} in {ahead} of {len(tunings)}"
        parts.append(best)
    return f"- Of {title}, most is won back at " + ". At ".join(parts) + "."
