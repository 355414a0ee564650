from __future__ import annotations

import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgetless.errors import ForgetlessError
from forgetless.lab.results.paired import _students_t, has_intervals, paired


@pytest.mark.parametrize(
    ("probability", "freedom", "expected"),
    [  # from the tables of any book of statistics
        (0.975, 1, 12.7062),
        (0.975, 2, 4.3027),
        (0.975, 4, 2.7764),
        (0.975, 9, 2.2622),
        (0.95, 9, 1.8331),
        (0.995, 29, 2.7564),
        (0.975, 10**6, 1.96),
        (0.5, 3, 0.0),
    ],
)
def test_students_t(probability: float, freedom: int, expected: float) -> None:
    assert _students_t(probability, freedom) == pytest.approx(expected, abs=1e-4)


def test_a_paired_difference_by_hand() -> None:
    ours = {1: 5.0, 2: 7.0, 3: 9.0, 4: 100.0}
    theirs = {1: 4.0, 2: 5.0, 3: 6.0, 5: -100.0}
    found = paired(ours, theirs)  # differences 1, 2, 3
    assert (found.mean, found.count, found.effect) == (2.0, 3, 2.0)
    assert found.low == pytest.approx(2 - 4.3027 / math.sqrt(3), abs=1e-4)
    assert found.high == pytest.approx(2 + 4.3027 / math.sqrt(3), abs=1e-4)


@given(st.lists(st.tuples(st.floats(-100, 100), st.floats(-100, 100)), min_size=2, max_size=8))
def test_turned_round_everything_changes_its_sign(figures: list[tuple[float, float]]) -> None:
    ours, theirs = ({run: pair[side] for run, pair in enumerate(figures)} for side in (0, 1))
    one, other = paired(ours, theirs), paired(theirs, ours)
    assert (one.mean, one.low, one.high, one.effect) == (-other.mean, -other.high, -other.low, -other.effect)
    assert one.low <= one.mean <= one.high


def test_what_cannot_be_compared() -> None:
    with pytest.raises(ForgetlessError, match=r"^the two methods have no run in common to be compared by\.$"):
        paired({1: 2.0}, {2: 2.0})
    with pytest.raises(ForgetlessError, match=r"^the level of a confidence interval is between 0 and 1, not 95\.$"):
        paired({1: 2.0}, {1: 2.0}, 95)
    alone = paired({1: 3.0}, {1: 2.0})
    assert (alone.mean, alone.low, alone.high, alone.count) == (1.0, -math.inf, math.inf, 1)
    assert math.isnan(alone.effect)


def test_without_scipy_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.special", None)
    with pytest.raises(ForgetlessError) as caught:
        paired({1: 3.0, 2: 4.0}, {1: 2.0, 2: 2.0})
    assert str(caught.value) == "confidence intervals need scipy: pip install 'forgetless[vision]'."
    assert has_intervals()  # it is installed where the tests run
