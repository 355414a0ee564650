"""Layers by methods, as the tables of a page show them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from forgetless.lab.report.shown import Traced
from forgetless.lab.traces import Layer

_MOST = 20  # layers in a table


@dataclass(frozen=True)
class Row:
    """A layer: its name, its weights, and a figure of each method, None where it is not known."""

    name: str
    weights: int
    entries: tuple[float | None, ...]


@dataclass(frozen=True)
class Grid:
    """The layers that are shown, how many more there are, and the largest figure."""

    rows: tuple[Row, ...]
    more: int
    most: float


def grid(traced: Traced, figure: Callable[[Layer], float | None]) -> Grid:
    """A figure of every layer after the last task that was learned, by method; of many layers the largest."""
    found = [{layer.name: layer for layer in trace.ends[-1].layers} for _, _, trace in traced]
    sizes = {name: layer.weights for layers in found for name, layer in layers.items()}
    kept = largest(list(sizes), list(sizes.values()))
    rows = tuple(
        Row(name, size, tuple(figure(layers[name]) if name in layers else None for layers in found))
        for name, size in sizes.items()
        if name in kept
    )
    known = [entry for row in rows for entry in row.entries if entry is not None]
    return Grid(rows, len(sizes) - len(rows), max(known, default=0.0))


def largest(names: Sequence[str], sizes: Sequence[float]) -> set[str]:
    """The names of the largest, at most as many as a table shows."""
    ordered = sorted(zip(sizes, names, strict=True), key=lambda each: -each[0])
    return {name for _, name in ordered[:_MOST]}
