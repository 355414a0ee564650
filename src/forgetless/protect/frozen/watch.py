"""`CoreWatch`: notices that the core moves, which it never does in the steps of an attached optimizer."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from forgetless.model.parameters import listing

_PARAMETERS, _VALUES = 8, 64  # how many are looked at, and how many elements of each
_ELSEWHERE = 8  # looks between two comparisons on a device that would have to be waited for


@dataclass
class _Watched:
    parameter: weakref.ref[nn.Parameter]
    places: Tensor
    values: Tensor
    name: str


class CoreWatch:
    """Compares a few elements of the core with what they were when it last looked.

    Attributes:
        moved: how many times they were others. Each of the first, second, fourth, eighth … time is told.
    """

    def __init__(self, masks: Mapping[nn.Parameter, Tensor], names: Mapping[nn.Parameter, str]) -> None:
        chosen = list(masks)
        chosen = [chosen[len(chosen) * number // _PARAMETERS] for number in range(_PARAMETERS)] if chosen else []
        self._watched: list[_Watched] = []
        for parameter in dict.fromkeys(chosen):
            core = masks[parameter].reshape(-1)[: 1 << 20].nonzero().squeeze(1)
            places = core[:: max(1, len(core) // _VALUES)][:_VALUES].to(parameter.device)
            if len(places):
                self._watched.append(
                    _Watched(weakref.ref(parameter), places, _read(parameter, places), names[parameter])
                )
        self._looks, self.moved = 0, 0

    @torch.no_grad()
    def look(self) -> None:
        """Compare now, or every few times where comparing makes the device wait."""
        self._looks += 1
        found = []
        for each in self._watched:
            parameter = each.parameter()
            if parameter is None or (parameter.device.type != "cpu" and self._looks % _ELSEWHERE):
                continue
            now = _read(parameter, each.places.to(parameter.device)).to(each.values)
            if not bool(((now == each.values) | (now.isnan() & each.values.isnan())).all()):
                each.values = now
                found.append(each.name)
        if not found:
            return
        self.moved += 1
        if self.moved & (self.moved - 1) == 0:
            times = f" (found {self.moved} times by now)" if self.moved > 1 else ""
            warnings.warn(
                f"elements of the frozen core in {listing(found)} are no longer what they were{times}: something else "
                "than the steps of an attached optimizer writes to them. core.attach(optimizer) each optimizer that "
                "trains the model; after loading other weights, remove() the core and freeze again.",
                stacklevel=4,
            )


def _read(parameter: Tensor, places: Tensor) -> Tensor:
    held = parameter.detach()
    if held.is_contiguous():
        return held.view(-1)[places]
    return held[torch.unravel_index(places, held.shape)]
