from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgetless.errors import ForgetlessError
from forgetless.learn import metrics
from forgetless.learn.metrics import Matrix

# Three tasks; above the diagonal what a head that existed beforehand would give.
R: Matrix = [
    [0.9, 0.3, 0.2],
    [0.7, 0.8, 0.4],
    [0.6, 0.85, 0.7],
]
LOWER: Matrix = [[0.9, None, None], [0.7, 0.8, None], [0.6, 0.85, 0.7]]

share = st.floats(0, 1, allow_nan=False)


@st.composite
def matrices(draw: st.DrawFn, least: int = 2) -> Matrix:
    tasks = draw(st.integers(least, 6))
    return [[draw(share) if j <= i else None for j in range(tasks)] for i in range(tasks)]


def near(value: float, expected: float) -> bool:
    return math.isclose(value, expected, abs_tol=1e-12)


@pytest.mark.parametrize("accuracy", [R, LOWER])
def test_by_hand(accuracy: Matrix) -> None:
    assert near(metrics.average_accuracy(accuracy), (0.6 + 0.85 + 0.7) / 3)
    assert near(metrics.learning_accuracy(accuracy), (0.9 + 0.8 + 0.7) / 3)
    assert near(metrics.average_incremental_accuracy(accuracy), (0.9 + (0.7 + 0.8) / 2 + (0.6 + 0.85 + 0.7) / 3) / 3)
    assert near(metrics.backward_transfer(accuracy), ((0.6 - 0.9) + (0.85 - 0.8)) / 2)
    assert near(metrics.forgetting(accuracy), ((0.9 - 0.6) + (0.8 - 0.85)) / 2)
    assert near(metrics.forgetting_mas(accuracy), ((0.9 - 0.6) + (0.8 - 0.85)) / 2)
    assert near(metrics.intransigence(accuracy, [0.9, 0.9, 0.9]), (0 + 0.1 + 0.2) / 3)


def test_forward_transfer_by_hand() -> None:
    assert near(metrics.forward_transfer(R, [0.1, 0.1, 0.25]), ((0.3 - 0.1) + (0.4 - 0.25)) / 2)


def test_forgetting_counts_the_best_a_task_ever_was() -> None:
    accuracy: Matrix = [[0.5, 0.99, None], [0.8, 0.6, None], [0.6, 0.7, 0.1]]
    assert near(metrics.forgetting(accuracy), ((0.8 - 0.6) + (0.99 - 0.7)) / 2)
    assert near(metrics.forgetting_mas(accuracy), ((0.5 - 0.6) + (0.6 - 0.7)) / 2)


@given(matrices())
def test_bounds_and_relations(accuracy: Matrix) -> None:
    tasks = len(accuracy)
    known = [entry for row in accuracy for entry in row if entry is not None]
    for mean in (metrics.average_accuracy, metrics.learning_accuracy, metrics.average_incremental_accuracy):
        assert min(known) - 1e-12 <= mean(accuracy) <= max(known) + 1e-12
    assert -1 <= metrics.backward_transfer(accuracy) <= 1
    assert metrics.forgetting(accuracy) >= metrics.forgetting_mas(accuracy) - 1e-12
    assert near(metrics.forgetting_mas(accuracy), -metrics.backward_transfer(accuracy))
    assert near(
        metrics.average_accuracy(accuracy),
        metrics.learning_accuracy(accuracy) + (tasks - 1) / tasks * metrics.backward_transfer(accuracy),
    )
    diagonal = [accuracy[j][j] for j in range(tasks)]
    assert near(metrics.intransigence(accuracy, diagonal), 0)  # type: ignore[arg-type]


@given(st.integers(1, 6), share)
def test_a_stream_that_changes_nothing(tasks: int, value: float) -> None:
    accuracy: Matrix = [[value] * tasks for _ in range(tasks)]
    assert near(metrics.average_accuracy(accuracy), value)
    assert near(metrics.average_incremental_accuracy(accuracy), value)
    if tasks > 1:
        assert near(metrics.forgetting(accuracy), 0)
        assert near(metrics.forward_transfer(accuracy, [value] * tasks), 0)


@given(st.data())
def test_the_order_of_old_tasks_does_not_matter_in_the_end(data: st.DataObject) -> None:
    tasks = data.draw(st.integers(2, 5))
    full: Matrix = [[data.draw(share) for _ in range(tasks)] for _ in range(tasks)]
    order = [*data.draw(st.permutations(range(tasks - 1))), tasks - 1]
    moved: Matrix = [[full[i][j] for j in order] for i in order]
    for metric in (metrics.average_accuracy, metrics.backward_transfer, metrics.forgetting):
        assert near(metric(moved), metric(full))


def test_one_task_is_enough_to_know_and_too_few_to_forget() -> None:
    assert metrics.average_accuracy([[0.5]]) == 0.5
    assert metrics.average_incremental_accuracy([[0.5]]) == 0.5
    metric: Callable[[Matrix], float]
    for metric in (metrics.backward_transfer, metrics.forgetting, metrics.forgetting_mas):
        with pytest.raises(ForgetlessError, match=r"^this needs 2 tasks or more; R has 1\.$"):
            metric([[0.5]])


@pytest.mark.parametrize(
    ("accuracy", "sentence"),
    [
        ([], "this needs 1 task or more; R has 0."),
        ([[0.5, 0.5]], "R must be square: 1 rows of [2] entries."),
        ([[0.5, None], [0.5]], "R must be square: 2 rows of [2, 1] entries."),
        ([[50.0]], "R[1,1] is 50.0, not an accuracy in [0, 1]."),
        ([[0.5, None], [math.nan, 0.5]], "R[2,1] is nan, not an accuracy in [0, 1]."),
        ([[0.5, "x"], [0.5, 0.5]], "R[1,2] is 'x', not an accuracy in [0, 1]."),
        ([[0.5, None], [None, 0.5]], "R[2,1] is not known, and this needs it."),
    ],
)
def test_bad_matrices(accuracy: Matrix, sentence: str) -> None:
    with pytest.raises(ForgetlessError) as caught:
        metrics.average_accuracy(accuracy)
    assert str(caught.value) == sentence


def test_what_a_formula_needs_must_be_known() -> None:
    with pytest.raises(ForgetlessError, match=r"^R\[1,2\] is not known, and this needs it\.$"):
        metrics.forward_transfer(LOWER, [0.1, 0.1, 0.1])
    holes: Matrix = [[None, None, None], [0.7, 0.8, None], [0.6, 0.85, 0.7]]
    with pytest.raises(ForgetlessError, match=r"^R\[1,1\] is not known, and this needs it\.$"):
        metrics.forgetting(holes)


def test_references_must_fit() -> None:
    with pytest.raises(
        ForgetlessError, match=r"^forward transfer over 3 tasks needs 3 untrained accuracies in \[0, 1\]\.$"
    ):
        metrics.forward_transfer(R, [0.1])
    with pytest.raises(
        ForgetlessError, match=r"^intransigence over 3 tasks needs 3 reference accuracies in \[0, 1\]\.$"
    ):
        metrics.intransigence(R, [0.1, 0.2, math.nan])


LOOKS = [(2, [0.4]), (4, [0.8]), (6, [0.6, 0.2]), (8, [0.7, 0.9]), (10, [0.5, 0.1, 0.3]), (12, [0.6, 0.4, 0.8])]


def test_average_anytime_accuracy_by_hand() -> None:
    assert metrics.average_anytime_accuracy(LOOKS) == pytest.approx((0.4 + 0.8 + 0.4 + 0.8 + 0.3 + 0.6) / 6)


def test_worst_case_accuracy_by_hand() -> None:
    """Task 1 fell to 0.5 after its end and task 2 to 0.1; what they had before does not count. The last has 0.8."""
    assert metrics.worst_case_accuracy(LOOKS) == pytest.approx((0.5 + 0.1 + 0.8) / 3)
    assert metrics.worst_case_accuracy(LOOKS[:2]) == 0.8


def test_looks_at_the_ends_of_tasks_give_the_average_incremental_accuracy() -> None:
    matrix = [[0.9, None, None], [0.5, 0.7, None], [0.1, 0.3, 0.8]]
    looks = [(n, [x for x in row if x is not None]) for n, row in enumerate(matrix)]
    assert metrics.average_anytime_accuracy(looks) == pytest.approx(metrics.average_incremental_accuracy(matrix))


@pytest.mark.parametrize("looks", [[], [(1, [])], [(1, [0.1, 0.2]), (2, [0.3])]])
def test_looks_that_lose_tasks_are_refused(looks: metrics.Looks) -> None:
    for metric in (metrics.average_anytime_accuracy, metrics.worst_case_accuracy):
        with pytest.raises(ForgetlessError, match="looks have the accuracies of more and more tasks"):
            metric(looks)


def test_a_look_that_is_no_share_is_refused() -> None:
    with pytest.raises(ForgetlessError, match=r"look 2 has \[1.5\], not accuracies"):
        metrics.worst_case_accuracy([(1, [0.5]), (2, [1.5])])
