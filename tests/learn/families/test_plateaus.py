"""Plateaus and peaks against their definition over the whole sequence, in exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from forgetless import ForgetlessError
from forgetless.learn.families.plateaus import Plateaus


def moments(losses: list[float], window: int, end: int) -> tuple[Fraction, Fraction] | None:
    """The mean and the variance of the `window` losses before number `end`, if there are as many."""
    if end < window:
        return None
    recent = [Fraction(loss) for loss in losses[end - window : end]]
    mean = sum(recent) / window
    return mean, sum((loss - mean) ** 2 for loss in recent) / window


def apart(one: Fraction, other: Fraction) -> bool:
    """Whether one is the larger; sequences in which rounding decides that say nothing."""
    assume(abs(one - other) > Fraction(1, 10**9))
    return one > other


def defined(losses: list[float], window: int, mean: float, variance: float) -> list[str | None]:
    """The event at each loss: every one looked for anew, from the last plateau on."""
    events: list[str | None] = []
    for end in range(1, len(losses) + 1):
        now = moments(losses, window, end)
        if now is None:
            events.append(None)
            continue
        plateaus = [n for n, event in enumerate(events) if event == "plateau"]
        peaked = not plateaus or "peak" in events[plateaus[-1] + 1 :]
        event = None
        if not peaked:
            last = moments(losses, window, plateaus[-1] + 1)
            assert last is not None
            rise = now[0] - last[0]
            peaked = rise > 0 and apart(rise**2, last[1])  # m > m_p + √v_p
            event = "peak" if peaked else None
        if peaked and not apart(now[0], Fraction(mean)) and not apart(now[1], Fraction(variance)):
            event = "plateau"
        events.append(event)
    return events


LEVELS = st.lists(st.tuples(st.integers(0, 16), st.integers(1, 6), st.integers(0, 3)), max_size=12)


def sequence(levels: list[tuple[int, int, int]]) -> list[float]:
    """Losses that stay near one level for a while, then near another."""
    return [abs(level + (-1) ** n * spread) / 16 for level, length, spread in levels for n in range(length)]


def followed(plateaus: Plateaus, losses: list[float]) -> list[str | None]:
    return [plateaus.add(loss) for loss in losses]


@settings(max_examples=150)
@given(LEVELS, st.integers(2, 6), st.floats(0.05, 1), st.floats(0.001, 0.1), st.data())
@example([(8, 4, 1), (1, 6, 1), (9, 5, 0), (1, 6, 1), (9, 5, 0)], 3, 0.2, 0.1, None)
def test_events_are_those_of_the_definition_whenever_it_is_stopped_and_goes_on(
    levels: list[tuple[int, int, int]], window: int, mean: float, variance: float, data: Any
) -> None:
    losses = sequence(levels)
    expected = defined(losses, window, mean, variance)
    assert followed(Plateaus(window, mean, variance), losses) == expected
    cut = len(losses) // 2 if data is None else data.draw(st.integers(0, len(losses)))
    first, second = Plateaus(window, mean, variance), Plateaus(window, mean, variance)
    found = followed(first, losses[:cut])
    second.load_state(first.state())
    assert found + followed(second, losses[cut:]) == expected
    assert torch.equal(first.state().nan_to_num(-1), state_after(losses[:cut], window, mean, variance))


def state_after(losses: list[float], window: int, mean: float, variance: float) -> torch.Tensor:
    again = Plateaus(window, mean, variance)
    followed(again, losses)
    return again.state().nan_to_num(-1)


def test_a_plateau_is_said_once_and_again_only_after_a_peak() -> None:
    plateaus = Plateaus(window=3, mean=0.5, variance=0.1)
    falls = followed(plateaus, [2.0, 1.0, 0.25, 0.25, 0.25, 0.25, 0.125, 0.0])
    assert falls == [None, None, None, None, "plateau", None, None, None]
    rises = followed(plateaus, [0.25, 0.25, 0.25, 1.0, 1.0, 1.0, 0.25, 0.25, 0.25, 0.25])
    assert rises == [None, None, None, "peak", None, None, None, None, "plateau", None]


def test_it_looks_at_full_windows_alone() -> None:
    assert followed(Plateaus(window=4, mean=1, variance=1), [0.0, 0.0, 0.0, 0.0]) == [None, None, None, "plateau"]


@pytest.mark.parametrize(
    ("losses", "events"),
    [
        ([0.5, 0.5, 0.25], [None, None, "plateau"]),  # a mean that is the threshold is not below it
        ([0.0, 0.5, 0.25], [None, None, "plateau"]),  # nor a variance: 1/16
        ([0.0, 0.25, 0.25, 0.25], [None, "plateau", None, None]),  # nor is 1/8 + √(1/64) above itself
        ([0.0, 0.25, 0.25, 0.3], [None, "plateau", None, "plateau"]),  # a peak so low that it is a plateau
    ],
)
def test_thresholds_are_strict(losses: list[float], events: list[str | None]) -> None:
    assert followed(Plateaus(window=2, mean=0.5, variance=1 / 16), losses) == events


def test_a_loss_that_is_not_finite_leaves_no_trace() -> None:
    plateaus = Plateaus(window=3)
    followed(plateaus, [1.0, 0.5])
    before = plateaus.state()
    for loss in (math.nan, math.inf, -math.inf):
        with pytest.raises(ForgetlessError, match=f"^the loss is {loss}: a window of losses holds finite ones.$"):
            plateaus.add(loss)
    assert torch.equal(plateaus.state()[2:], before[2:])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"window": 1}, "a window of losses needs two or more, not 1"),
        ({"window": 2.5}, "a window of losses needs two or more, not 2.5"),
        ({"window": "5"}, "a window of losses needs two or more, not '5'"),
        ({"mean": 0.0}, "the mean of a plateau must be below a positive number, not 0.0"),
        ({"mean": math.nan}, "the mean of a plateau must be below a positive number, not nan"),
        ({"mean": "0.2"}, "the mean of a plateau must be below a positive number, not '0.2'"),
        ({"variance": -0.1}, "the variance of a plateau must be below a positive number, not -0.1"),
        ({"variance": math.inf}, "the variance of a plateau must be below a positive number, not inf"),
    ],
)
def test_refuses(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ForgetlessError, match=sentence):
        Plateaus(**options)


@pytest.mark.parametrize(
    "state",
    [
        torch.zeros(2, dtype=torch.float64),
        torch.zeros(7, dtype=torch.float64),
        torch.zeros(5),
        torch.zeros(1, 5, dtype=torch.float64),
        torch.tensor([math.nan, math.nan, 1, 0.5, math.nan], dtype=torch.float64),
        torch.tensor([math.nan, math.nan, 1, 0.5, math.inf], dtype=torch.float64),
        torch.tensor([0.5, -1.0, 1, 0.5], dtype=torch.float64),
    ],
)
def test_a_state_of_something_else_is_refused_and_changes_nothing(state: torch.Tensor) -> None:
    plateaus = Plateaus(window=3)
    followed(plateaus, [0.1, 0.1, 0.1, 2.0])
    before = plateaus.state()
    with pytest.raises(ForgetlessError, match="the state of a window of 3 losses does not fit"):
        plateaus.load_state(state)
    assert torch.equal(plateaus.state(), before)
