from __future__ import annotations

import math
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgetless.errors import ForgetlessError
from forgetless.lab.experiments.parts.comparison import paired, quantile, table, verdict


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
    assert quantile(probability, freedom) == pytest.approx(expected, abs=1e-4)


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


@pytest.mark.parametrize(("mean", "expected"), [(98.0, "within"), (99.6, "above"), (97.9, "**below**")])
def test_verdicts(mean: float, expected: str) -> None:
    assert verdict([mean - 1, mean + 1], (98.75, 0.8)) == expected


def run(method: str, seed: int, end: float, strength: float | None = None) -> dict[str, Any]:
    return {"method": method, "seed": seed, "strength": strength, "accuracy": [[1.0, None], [end, 1.0]]}


def test_the_table_has_published_and_ours_side_by_side() -> None:
    runs = [run("mas", 0, 0.9, 1.0), run("mas", 1, 0.8, 1.0), run("finetune", 0, 0.5), run("finetune", 1, 0.6)]
    text = table({"task": {"runs": runs}, "class": {"runs": []}}, {"task": {"finetune": (80.0, 3.0), "joint": (99, 1)}})
    lines = text.splitlines()
    assert lines[0].startswith("**task-incremental**")
    assert len(lines) == 6
    # the differences are 20 and 10 percent, of the means over two tasks
    half = 12.7062 * statistics.stdev([20.0, 10.0]) / math.sqrt(2)
    assert lines[4] == (
        "| finetune | – | 80.00 ± 3.00 | 77.50 ± 3.54 | 2 | within | 45.00 ± 7.07 "
        f"| +15.00 [{15 - half:+.2f}, {15 + half:+.2f}] | {15 / statistics.stdev([20.0, 10.0]):.1f} |"
    )
    assert lines[5].startswith("| mas | 1 | – | 92.50 ± 3.54 | 2 | – | 15.00 ± 7.07 | – | – |")
