"""What a trainer plans: its steps, counted in steps at the peak learning rate."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau


def peak_steps(scheduler: Any, steps: int, calls: int | None = None) -> float:
    """`Σ_t η_t / max_t η_t` over the planned steps: how many steps at the peak rate would move the weights as far.

    500 for 1,000 steps whose rate falls linearly to 0. The schedule is run ahead on a copy. Where it depends on what
    training finds (`ReduceLROnPlateau`), or there is none, all steps count as at the peak. Of several groups of
    parameters the one with the most counts.

    Args:
        scheduler: torch's, or Accelerate's around it, before its first step; None for a constant rate.
        steps: of the optimizer, planned.
        calls: how often the scheduler is stepped meanwhile, where that is not once a step.
    """
    scheduler = getattr(scheduler, "scheduler", scheduler)
    if not isinstance(scheduler, LRScheduler) or isinstance(scheduler, ReduceLROnPlateau):
        return float(steps)
    calls = steps if calls is None else max(calls, 1)
    optimizer = _Rates(scheduler.optimizer.param_groups)
    inside = getattr(scheduler.optimizer, "optimizer", scheduler.optimizer)
    ahead = copy.deepcopy(scheduler, {id(scheduler.optimizer): optimizer, id(inside): optimizer})
    sums, peaks = [0.0] * len(optimizer.param_groups), [0.0] * len(optimizer.param_groups)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no optimizer stepped in between
        for _ in range(calls):
            for number, group in enumerate(optimizer.param_groups):
                rate = float(group["lr"])
                sums[number] += rate
                peaks[number] = max(peaks[number], rate)
            try:
                ahead.step()
            except TypeError:  # it asks for a metric, which nobody knows yet
                return float(steps)
    shares = [total / peak / calls for total, peak in zip(sums, peaks, strict=True) if peak > 0]
    return steps * max(shares, default=1.0)


class _Rates(torch.optim.SGD):
    """An optimizer that has nothing but the settings of another's groups."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__([torch.zeros(())], lr=0.0)
        self.param_groups = [
            {**{key: copy.copy(value) for key, value in group.items() if key != "params"}, "params": []}
            for group in groups
        ]
