"""Average precision, recall and ranks against scikit-learn, against slow loops, and against every order of ties."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st
from torch import Tensor

from forgetless.errors import ForgetlessError
from forgetless.learn.retrieval import average_precision, percentile, recall_at

Query = tuple[list[float], list[bool]]  # the scores of the entries, and which are relevant
MEASURES = {
    "average precision": average_precision,
    "recall at 2": lambda scores, relevant: recall_at(scores, relevant, 2),
    "percentile": percentile,
}


@st.composite
def query(draw: st.DrawFn, most: int = 12) -> Query:
    """Few different scores, so that many entries share one."""
    size = draw(st.integers(1, most))
    scores = draw(st.lists(st.sampled_from([-math.inf, -1.0, 0.0, 0.25, 0.5, 3.0]), min_size=size, max_size=size))
    relevant = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    relevant[draw(st.integers(0, size - 1))] = True
    return scores, relevant


def rows(*queries: Query) -> tuple[Tensor, Tensor]:
    scores, relevant = zip(*queries, strict=True)
    return torch.tensor(scores, dtype=torch.float64), torch.tensor(relevant)


def slow_average_precision(scores: list[float], relevant: list[bool]) -> float:
    """`Σ_k (R_k − R_{k−1}) P_k` over the distinct scores, from the highest."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        above = [hit for score, hit in zip(scores, relevant, strict=True) if score >= threshold]
        recall = sum(above) / sum(relevant)
        total += (recall - before) * sum(above) / len(above)
        before = recall
    return total


def slow_recall(scores: list[float], relevant: list[bool], k: int) -> float:
    """The share of all orders of the entries in which a stable sort by score finds a relevant one among the first k."""
    found = []
    for order in itertools.permutations(range(len(scores))):
        ranked = sorted(order, key=lambda entry: -scores[entry])
        found.append(any(relevant[entry] for entry in ranked[:k]))
    return sum(found) / len(found)


def slow_percentile(scores: list[float], relevant: list[bool]) -> float:
    best = max(score for score, hit in zip(scores, relevant, strict=True) if hit)
    others = [score for score, hit in zip(scores, relevant, strict=True) if not hit]
    beaten = [1.0 if score < best else 0.5 if score == best else 0.0 for score in others]
    return sum(beaten) / len(beaten) if beaten else 1.0


@given(query())
def test_average_precision_is_scikit_learns(found: Query) -> None:
    sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    scores = [max(score, -9.0) for score in found[0]]  # scikit-learn takes no −∞
    expected = sklearn.average_precision_score(found[1], scores)
    assert float(average_precision(*rows((scores, found[1])))) == pytest.approx(expected, abs=1e-12)


@given(query())
def test_average_precision_against_a_loop(found: Query) -> None:
    assert float(average_precision(*rows(found))) == pytest.approx(slow_average_precision(*found), abs=1e-12)


@given(query(most=5), st.integers(1, 7))
@how(max_examples=60)
def test_recall_is_a_probability_over_the_orders_of_ties(found: Query, k: int) -> None:
    assert float(recall_at(*rows(found), k)) == pytest.approx(slow_recall(*found, k), abs=1e-12)


@given(query())
def test_percentile_against_a_loop(found: Query) -> None:
    assert float(percentile(*rows(found))) == pytest.approx(slow_percentile(*found), abs=1e-12)


def test_values_by_hand() -> None:
    scores, relevant = rows(
        ([0.9, 0.8, 0.7, 0.6], [True, False, True, False]), ([1.0, 1.0, 1.0, 0.0], [False, True] * 2)
    )
    assert average_precision(scores, relevant).tolist() == pytest.approx([(1 + 2 / 3) / 2, (1 / 3 + 2 / 4) / 2])
    assert recall_at(scores, relevant, 1).tolist() == pytest.approx([1, 1 / 3])
    assert recall_at(scores, relevant, 3).tolist() == pytest.approx([1, 1])
    assert percentile(scores, relevant).tolist() == pytest.approx([1, 0.5])


@pytest.mark.parametrize("measure", MEASURES)
@given(st.data())
@how(max_examples=40)
def test_the_order_of_the_entries_and_the_other_queries_change_nothing(measure: str, data: st.DataObject) -> None:
    first = data.draw(query())
    order = data.draw(st.permutations(range(len(first[0]))))
    moved = [first[0][n] for n in order], [first[1][n] for n in order]
    other = [0.25] * len(order), [True] * len(order)
    alone = MEASURES[measure](*rows(first))
    together = MEASURES[measure](*rows(other, moved))
    assert alone.dtype == together.dtype == torch.float64
    assert float(together[1]) == pytest.approx(float(alone[0]), abs=1e-12)


@pytest.mark.parametrize("measure", MEASURES)
def test_scores_of_any_width_are_ranked(measure: str) -> None:
    scores, relevant = rows(([0.5, 0.25, 0.25, -2.0], [False, True, False, True]))
    expected = MEASURES[measure](scores, relevant)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        assert torch.equal(MEASURES[measure](scores.to(dtype), relevant), expected)


@pytest.mark.parametrize("measure", MEASURES)
def test_bad_input(measure: str) -> None:
    scores, relevant = rows(([1.0, 0.5], [True, False]), ([1.0, 0.5], [False, False]))
    with pytest.raises(ForgetlessError, match=r"^query 1 has no relevant entry among 2\.$"):
        MEASURES[measure](scores, relevant)
    relevant[1, 0], scores[0, 1] = True, math.nan
    with pytest.raises(ForgetlessError, match=r"^a score is NaN, so there is no ranking\.$"):
        MEASURES[measure](scores, relevant)


@pytest.mark.parametrize("k", [0, -3])
def test_recall_needs_a_place(k: int) -> None:
    with pytest.raises(ForgetlessError, match=rf"^recall needs at least the first place, not the first {k}\.$"):
        recall_at(*rows(([1.0], [True])), k)
