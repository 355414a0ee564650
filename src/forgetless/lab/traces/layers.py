"""The layers of a network that is being trained: how far each moved, how much of it is held, how much it matters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from forgetless.errors import ForgetlessError
from forgetless.lab.traces.trace import Layer
from forgetless.learn.network import Network
from forgetless.protect.anchor import Anchor

_DIGITS = 4  # significant ones
_CHANNELS = 2048  # the most of a layer that are kept


class Layers:
    """The layers that tasks share.

    Args:
        model: the network, as it is at the start of the stream.
        anchors: what gives the anchors that protect it now.
    """

    def __init__(self, model: Network, anchors: Callable[[], Sequence[Anchor]]) -> None:
        self._model, self._anchors = model, anchors
        self._start = {name: weights.detach().clone() for name, weights in self._shared()}
        self._held: dict[str, float | None] = {}

    def _shared(self) -> Iterator[tuple[str, nn.Parameter]]:
        alone = tuple(f"{name}." for name in self._model.unshared)
        return ((name, each) for name, each in self._model.named_parameters() if not name.startswith(alone))

    def drift(self) -> float:
        """`‖θ − θ₀‖ / ‖θ₀‖` over all layers that were there at the start; NaN where they are 0."""
        parts = list(self._distances().values())
        return _relative(sum(each[0] for each in parts), sum(each[1] for each in parts))

    def _distances(self) -> dict[str, tuple[float, float]]:
        """Layer → `‖θ − θ₀‖²` and `‖θ₀‖²`."""
        found: dict[str, tuple[float, float]] = {}
        for name, weights in self._shared():
            start = self._start.get(name)
            if start is not None and start.shape == weights.shape:
                moved, whole = found.get(_layer(name), (0.0, 0.0))
                squares = (float(torch.linalg.vector_norm(each)) ** 2 for each in (weights.detach() - start, start))
                found[_layer(name)] = (moved + next(squares), whole + next(squares))
        return found

    def look_at_protection(self, steps: float) -> None:
        """Note how much of each layer is held by so many steps at the peak rate, while the anchors are attached."""
        frozen = {_layer(name) for name, weights in self._shared() if not weights.requires_grad}
        frozen -= {_layer(name) for name, weights in self._shared() if weights.requires_grad}
        names = dict.fromkeys(_layer(name) for name, _ in self._shared())
        self._held = {name: 1.0 if name in frozen else 0.0 for name in names}
        for anchor in self._anchors():
            shares: Mapping[str, float | None]
            try:
                shares = anchor.frozen_fraction(steps).per_layer
            except ForgetlessError:  # it acts on the gradients, so that there is no s
                shares = dict.fromkeys(map(_layer, anchor.importance))
            for name, share in shares.items():
                if name in self._held:
                    before = self._held[name]
                    self._held[name] = None if share is None or before is None else max(before, share)

    def found(self, channels: bool) -> list[Layer]:
        """Every layer now; with the importance of its channels if these are asked for."""
        sizes: dict[str, int] = {}
        for name, weights in self._shared():
            sizes[_layer(name)] = sizes.get(_layer(name), 0) + weights.numel()
        distances, important, by_channel = self._distances(), dict[str, float](), dict[str, list[float]]()
        omegas = next((found for anchor in self._anchors() if (found := anchor.importance)), {})
        for name, omega in omegas.items():
            layer = _layer(name)
            important[layer] = important.get(layer, 0.0) + float(omega.double().sum())
            if channels and omega.dim() > 1 and len(omega) <= _CHANNELS:
                by_channel[layer] = _rounded(omega.float().flatten(1).mean(1))
        return [
            Layer(
                name,
                size,
                drift=_known(_relative(*distances[name])) if name in distances else None,
                held=_known(self._held.get(name)),
                importance=_known(important[name] / size) if name in important else None,
                channels=by_channel.get(name, []),
            )
            for name, size in sizes.items()
        ]


def _layer(name: str) -> str:
    return name.rpartition(".")[0] or name


def _relative(moved: float, whole: float) -> float:
    return _significant(math.sqrt(moved / whole)) if whole > 0 and math.isfinite(moved / whole) else math.nan


def _known(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else _significant(value)


def _significant(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _rounded(values: Tensor) -> list[float]:
    return [_significant(value) if math.isfinite(value) else 0.0 for value in values.tolist()]
