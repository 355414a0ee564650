"""The planned steps in steps at the peak rate, by every scheduler's own arithmetic."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from forgetless.integrations.parts.planned import peak_steps

STEPS = 100


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.5, momentum=0.9)


def warmed(o: Any) -> Any:
    warm = lr_scheduler.LinearLR(o, 0.01, 1.0, 20)
    return lr_scheduler.SequentialLR(o, [warm, lr_scheduler.CosineAnnealingLR(o, 80)], [20])


MADE = {
    "none": (lambda o: None, 100),
    "linear": (lambda o: lr_scheduler.LambdaLR(o, lambda step: 1 - step / STEPS), 50.5),
    "cosine": (lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS), 50.5),
    "steps": (lambda o: lr_scheduler.StepLR(o, 50, 0.1), 55),
    "warmed": (warmed, 20 * (0.01 + 0.5 * 0.99 * 19 / 20) + 40.5),
    "one cycle": (lambda o: lr_scheduler.OneCycleLR(o, 1.0, total_steps=STEPS), 50.2),
    "plateau": (lr_scheduler.ReduceLROnPlateau, 100),
}


@pytest.mark.parametrize("kind", MADE)
def test_steps_at_the_peak(kind: str) -> None:
    stepped = optimizer()
    make, expected = MADE[kind]
    scheduler = make(stepped)  # type: ignore[no-untyped-call]
    before = [{**group, "params": None} for group in stepped.param_groups]
    assert math.isclose(peak_steps(scheduler, STEPS), expected, rel_tol=0.01)
    assert before == [{**group, "params": None} for group in stepped.param_groups]
    assert scheduler is None or scheduler.last_epoch == 0


def test_a_scheduler_that_is_stepped_once_an_epoch() -> None:
    scheduler = lr_scheduler.LambdaLR(optimizer(), lambda epoch: 1 - epoch / 4)
    assert peak_steps(scheduler, STEPS, 4) == STEPS * (1 + 0.75 + 0.5 + 0.25) / 4


def test_of_several_groups_the_one_that_moves_most() -> None:
    layers = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    several = torch.optim.SGD([{"params": layers[0].parameters()}, {"params": layers[1].parameters()}], lr=1.0)
    falling, constant = (lambda step: 1 - step / STEPS), (lambda step: 0.1)
    assert peak_steps(lr_scheduler.LambdaLR(several, [falling, constant]), STEPS) == pytest.approx(STEPS)


def test_accelerates_around_it() -> None:
    accelerate = pytest.importorskip("accelerate")
    stepped = optimizer()
    scheduler = lr_scheduler.LambdaLR(stepped, lambda step: 1 - step / STEPS)
    _, prepared = accelerate.Accelerator(cpu=True).prepare(stepped, scheduler)
    assert peak_steps(prepared, STEPS) == pytest.approx(50.5)
    assert scheduler.last_epoch == 0


def test_a_schedule_that_asks_for_a_metric() -> None:
    schedules = pytest.importorskip("transformers.optimization")
    if not hasattr(schedules, "GreedyLR"):
        pytest.skip("this transformers has no GreedyLR")
    assert peak_steps(schedules.GreedyLR(optimizer()), STEPS) == STEPS
