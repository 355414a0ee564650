"""`CoreWatch`: notices that the core moves, which it never does in the steps of an attached optimizer."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Mapping

import torch
from torch import Tensor, nn

_PARAMETERS, _VALUES = 8, 64  # how many are looked at, and how many elements of each
_ELSEWHERE = 8  # looks between two comparisons on a device that would have to be waited for


class CoreWatch:
    """Compares a few elements of the core with what they were; says once that they are others."""

    def __init__(self, masks: Mapping[nn.Parameter, Tensor], names: Mapping[nn.Parameter, str]) -> None:
        chosen = list(masks)
        chosen = [chosen[len(chosen) * number // _PARAMETERS] for number in range(_PARAMETERS)] if chosen else []
        self._watched: list[tuple[weakref.ref[nn.Parameter], Tensor, Tensor, str]] = []
        for parameter in dict.fromkeys(chosen):
            core = masks[parameter].reshape(-1)[: 1 << 20].nonzero().squeeze(1)
            places = core[:: max(1, len(core) // _VALUES)][:_VALUES].to(parameter.device)
            if len(places):
                values = _read(parameter, places)
                self._watched.append((weakref.ref(parameter), places, values, names[parameter]))
        self._looks, self._said = 0, False

    @torch.no_grad()
    def look(self) -> None:
        """Compare now, or every few times where comparing makes the device wait."""
        self._looks += 1
        for held, places, values, name in () if self._said else self._watched:
            parameter = held()
            if parameter is None or (parameter.device.type != "cpu" and self._looks % _ELSEWHERE):
                continue
            if not torch.equal(_read(parameter, places.to(parameter.device)).to(values), values):
                self._said = True
                warnings.warn(
                    f"elements of the frozen core in {name!r} are no longer what they were: something else than the "
                    "steps of an attached optimizer writes to them. core.attach(optimizer) each optimizer that trains "
                    "the model; after loading other weights, remove() the core and freeze again.",
                    stacklevel=4,
                )
                return


def _read(parameter: Tensor, places: Tensor) -> Tensor:
    held = parameter.detach()
    if held.is_contiguous():
        return held.view(-1)[places]
    return held[torch.unravel_index(places, held.shape)]
