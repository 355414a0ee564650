"""What a frontier keeps of the old task at equal new skill, and how certain that is: a paired bootstrap."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from studies.evidence.vision_scene import unpacked
from studies.repair_frontier import Point, at_least

Bits = np.ndarray[Any, np.dtype[np.bool_]]
Counts = np.ndarray[Any, np.dtype[np.int64]]
#: The share of fine-tuning's accuracy on the new task at which methods are compared, and what they are compared with.
LEVEL, BESIDE = 0.95, "MAS"
#: A frontier without a method: the line from fine-tuning to the frozen backbone.
NEITHER = "the two ends alone"
_LEVELS, _REPLICATES = 11, 1000


@dataclass(frozen=True)
class Cell:
    """One pair of tasks with one seed.

    Attributes:
        pair: its name.
        seed: of the pictures and of their order.
        keys: the method and the setting of every row.
        old: which old test pictures each row gets right, `[rows, N_old]`.
        new: likewise of the new task, `[rows, N_new]`.
    """

    pair: str
    seed: int
    keys: Sequence[tuple[str, float]]
    old: Bits
    new: Bits

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Cell:
        """A cell from its JSON."""
        keys = [(row["method"], row["setting"]) for row in found["rows"]]
        old, new = (np.stack([unpacked(row[f"{task} right"]) for row in found["rows"]]) for task in ("old", "new"))
        return cls(found["pair"], found["seed"], keys, old, new)

    def accuracies(self, pictures: tuple[Counts, Counts] | None = None) -> dict[tuple[str, float], tuple[float, float]]:
        """(method, setting) → accuracy on the old task and on the new one, each picture as often as it is drawn."""
        weights = pictures or (np.ones(self.old.shape[1], np.int64), np.ones(self.new.shape[1], np.int64))
        old, new = (right @ counts / counts.sum() for right, counts in zip((self.old, self.new), weights, strict=True))
        return dict(zip(self.keys, zip(old.tolist(), new.tolist(), strict=True), strict=True))


@dataclass(frozen=True)
class Reading:
    """What a frontier keeps, in accuracy on the old task above that of fine-tuning.

    Attributes:
        kept: at `LEVEL` of fine-tuning's accuracy on the new task: the most along the lines between any two points.
        area: the mean of that over all levels from the frozen backbone's accuracy on the new task up to fine-tuning's.
    """

    kept: float
    area: float


def read(accuracies: Mapping[tuple[str, float], tuple[float, float]], method: str, level: float = LEVEL) -> Reading:
    """A method's frontier; its ends are fine-tuning and the frozen backbone."""
    (worst, most), (frozen_old, frozen_new) = accuracies["fine-tuned", 0], accuracies["base", 0]

    def point(setting: float, old: float, new: float) -> Point:
        return Point(setting, new / most if most else 1.0, {"old": old - worst})

    path = [point(key[1], *each) for key, each in accuracies.items() if key[0] == method]
    path.append(point(0, frozen_old, frozen_new))
    least = min(path[-1].kept, 1.0)
    levels = np.linspace(least, 1, _LEVELS)
    return Reading(
        at_least(path, level, "old"), float(np.mean([at_least(path, float(each), "old") for each in levels]))
    )


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval.

    Attributes:
        value: from all runs.
        low: the lower end.
        high: the upper end.
    """

    value: float
    low: float
    high: float


def shares(
    cells: Sequence[Cell], methods: Sequence[str], pictures: Mapping[str, tuple[Counts, Counts]] | None = None
) -> dict[str, Reading]:
    """Method → what it keeps as shares of what fine-tuning forgets: the ratio of sums over the cells."""
    kept, area, forgotten = dict.fromkeys(methods, 0.0), dict.fromkeys(methods, 0.0), 0.0
    for cell in cells:
        found = cell.accuracies(None if pictures is None else pictures[cell.pair])
        forgotten += found["base", 0][0] - found["fine-tuned", 0][0]
        for method in methods:
            reading = read(found, method)
            kept[method] += reading.kept
            area[method] += reading.area
    return {method: Reading(kept[method] / forgotten, area[method] / forgotten) for method in methods}


def drawn(cells: Sequence[Cell], seed: int) -> tuple[list[Cell], dict[str, tuple[Counts, Counts]]]:
    """A replicate: of every pair its seeds with replacement, and its test pictures, the same for all methods."""
    generator = np.random.default_rng(seed)
    chosen, pictures = list[Cell](), {}
    for pair in dict.fromkeys(cell.pair for cell in cells):
        own = [cell for cell in cells if cell.pair == pair]
        chosen += [own[each] for each in generator.integers(len(own), size=len(own))]
        sizes = (own[0].old.shape[1], own[0].new.shape[1])
        pictures[pair] = tuple(np.bincount(generator.integers(size, size=size), minlength=size) for size in sizes)
    return chosen, pictures  # type: ignore[return-value]


def compared(cells: Sequence[Cell], methods: Sequence[str], replicates: int = _REPLICATES) -> Iterator[dict[str, Any]]:
    """Every method's shares with intervals, and their differences from MAS over the same replicates."""
    whole = shares(cells, methods)
    each = [shares(*_split(drawn(cells, seed), methods)) for seed in range(replicates)]
    for method in methods:
        row: dict[str, Any] = {"method": method}
        for what in ("kept", "area"):
            values = np.array([getattr(found[method], what) for found in each])
            beside = np.array([getattr(found[BESIDE], what) for found in each])
            own, other = getattr(whole[method], what), getattr(whole[BESIDE], what)
            row[what] = _interval(own, values)
            row[f"{what} beside"] = _interval(own - other, values - beside)
        yield row


def _split(
    replicate: tuple[list[Cell], dict[str, tuple[Counts, Counts]]], methods: Sequence[str]
) -> tuple[list[Cell], Sequence[str], dict[str, tuple[Counts, Counts]]]:
    return replicate[0], methods, replicate[1]


def _interval(value: float, values: np.ndarray[Any, Any]) -> list[float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return [round(float(each), 4) for each in (value, low, high)]
