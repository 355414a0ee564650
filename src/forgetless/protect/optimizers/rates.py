"""`PeakRates`: the largest learning rate of each parameter group: a schedule's end does not hide what was done."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer

from forgetless.protect.optimizers.response import Group

_SCALES = ("lr", "scheduled_lr")  # what scales a group's steps; schedule-free optimizers have the second
_NOTED = ("initial_lr", "max_lr")  # where schedulers note the largest `lr` that they will give


class PeakRates:
    """The largest rates that an optimizer's groups have had, or that their scheduler has noted."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._seen: dict[tuple[int, str], float | Tensor] = {}

    def note(self) -> None:
        """Look at the present rates; those that are tensors are not waited for."""
        for k, group in enumerate(self._optimizer.param_groups):
            for key in _SCALES:
                if isinstance(rate := group.get(key), float | int | Tensor):
                    self._seen[k, key] = _largest([rate, self._seen.get((k, key), 0.0)])

    def groups(self) -> dict[int, Group]:
        """A group's id → the group with its rates at their peak."""
        found: dict[int, Group] = {}
        for k, group in enumerate(self._optimizer.param_groups):
            at_peak = dict(group)
            for key in _SCALES:
                if isinstance(group.get(key), float | int | Tensor):
                    noted = [group[each] for each in _NOTED if each in group and key == "lr"]
                    at_peak[key] = _largest([group[key], *noted, self._seen.get((k, key), 0.0)])
            found[id(group)] = at_peak
        return found


def _largest(rates: list[float | Tensor]) -> float | Tensor:
    tensor = next((each for each in rates if isinstance(each, Tensor)), None)
    if tensor is None:
        return max(rates)
    return torch.stack([torch.as_tensor(each).detach().to(tensor) for each in rates]).amax(0)
