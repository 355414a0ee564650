"""When probes are due: decided by counting, so that a run repeats itself."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from forgetless.protect.forgetting.pace import Pace


def steps(pace: Pace, model: nn.Module, number: int, rows: int = 32, calls: int = 1) -> list[int]:
    due = []
    for step in range(1, number + 1):
        for _ in range(calls):
            model(torch.zeros(rows, 2))
        if pace.stepped():
            due.append(step)
    return due


@pytest.mark.parametrize(
    ("rows", "calls", "rounds", "every", "asked"),
    [
        (32, 1, 1, 17, 32),  # a forward pass is a third of a step: 1 in 17 is 2 %
        (128, 1, 1, 17, 128),
        (32, 4, 1, 5, 32),  # accumulated over four passes
        (4, 1, 1, 67, 16),  # so few at a time that they are put together
        (32, 1, 2, 34, 32),  # every sample twice in a round
    ],
)
def test_the_pace_follows_from_what_the_first_step_learns_from(rows, calls, rounds, every, asked):
    model = nn.Linear(2, 2)
    pace = Pace(model, None, 7, rounds)
    due = steps(pace, model, 3 * every, rows, calls)
    assert (pace.every, pace.rows) == (every, asked)
    assert due == [every, 2 * every, 3 * every]
    assert not model._forward_pre_hooks


def test_forward_passes_that_do_not_learn_are_not_counted():
    model = nn.Linear(2, 2)
    pace = Pace(model, None, 7)
    with torch.no_grad():
        model(torch.zeros(500, 2))
    model.eval()
    model(torch.zeros(500, 2))
    model.train()
    assert steps(pace, model, 17) == [17]
    assert pace.rows == 32


def test_without_a_forward_pass_to_be_seen_the_rows_given_stay():
    model = nn.Linear(2, 2)
    pace = Pace(model, None, 7)
    assert steps(pace, model, 34, calls=0) == [17, 34]
    assert pace.rows == 7


def test_a_given_pace_is_kept():
    model = nn.Linear(2, 2)
    pace = Pace(model, 3, 7)
    assert not model._forward_pre_hooks
    assert steps(pace, model, 7) == [3, 6]
    assert pace.rows == 7


def test_the_cost_is_the_share_of_the_clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("forgetless.protect.forgetting.pace.time.perf_counter", lambda: now[0])
    pace = Pace(nn.Linear(2, 2), 1, 7)
    assert pace.cost == 0
    for _ in range(5):
        now[0] += 1.0
        assert pace.stepped()
        with pace.asking():
            now[0] += 0.1
    assert pace.cost == pytest.approx(0.5 / 4)
