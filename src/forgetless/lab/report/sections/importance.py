"""Which layers and which of their channels matter, by the Ω that each method has gathered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from forgetless.lab.report.layers import largest
from forgetless.lab.report.shown import Shown
from forgetless.lab.results import MethodSummary
from forgetless.lab.traces import Layer, Trace

_CELLS = 64  # of a strip of channels


@dataclass(frozen=True)
class Important:
    """A layer of one method.

    Attributes:
        name: the module's.
        weights: how many it has.
        mean: of Ω over them.
        share: of all Ω.
        cells: of its channels from the most to the least important, as many to a cell as fit: how many channels, the
            largest mean Ω among them, and that as a share of the layer's largest.
    """

    name: str
    weights: int
    mean: float
    share: float
    cells: tuple[tuple[int, float, float], ...]


@dataclass(frozen=True)
class Method:
    """A method with the layers that it protects, and how many more there are than are shown."""

    number: int
    summary: MethodSummary
    layers: tuple[Important, ...]
    more: int


def section(shown: Shown) -> dict[str, Any] | None:
    """A table for every method that has gathered Ω."""
    found = [_method(number, summary, trace) for number, summary, trace in shown.traced()]
    known = [each for each in found if each is not None]
    return {"methods": known} if known else None


def _method(number: int, summary: MethodSummary, trace: Trace) -> Method | None:
    layers = [layer for layer in trace.ends[-1].layers if layer.importance is not None]
    whole = sum(_total(layer) for layer in layers)
    if not whole > 0:
        return None
    kept = largest([layer.name for layer in layers], [_total(layer) for layer in layers])
    rows = tuple(_important(layer, whole) for layer in layers if layer.name in kept)
    return Method(number, summary, rows, len(layers) - len(rows))


def _total(layer: Layer) -> float:
    return (layer.importance or 0.0) * layer.weights


def _important(layer: Layer, whole: float) -> Important:
    ordered = sorted(layer.channels, reverse=True)
    most = ordered[0] if ordered else 0.0
    size = -(-len(ordered) // _CELLS)
    parts = [ordered[first : first + size] for first in range(0, len(ordered), size)] if most > 0 else []
    cells = tuple((len(part), part[0], part[0] / most) for part in parts)
    return Important(layer.name, layer.weights, layer.importance or 0.0, _total(layer) / whole, cells)
