"""Accuracy, forgetting and transfer of a stream of tasks: functions of the accuracy matrix R.

`R[i,j]` is the accuracy on task j after learning task i (or another score), a share in [0, 1] of which 1 is best, or
None where it is not known; T tasks, counted from 1 in the formulas. The literature uses the same words for different
formulas, so every function names its source and says what others compute under its name. All raise `ForgetlessError`
when R is not a square matrix of shares, or lacks an entry that the formula needs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from forgetless.errors import ForgetlessError

Matrix = list[list[float | None]]
Rows = Sequence[Sequence[float | None]]
#: What was looked at in the middle of a stream: any number, and the score of every task that had begun by then.
Looks = Sequence[tuple[int, Sequence[float]]]


def average_accuracy(accuracy: Rows) -> float:
    """ACC: the average accuracy after the last task, `1/T Σ_j R[T,j]`.

    Lopez-Paz and Ranzato, "Gradient Episodic Memory for Continual Learning", NeurIPS 2017; also A_T of Chaudhry
    et al. 2018. Tasks count alike, whatever their size; some codes average over test samples instead.
    """
    last = len(checked(accuracy)) - 1
    return _mean(_entry(accuracy, last, j) for j in range(last + 1))


def learning_accuracy(accuracy: Rows) -> float:
    """LA: how well each task was learned when its turn came, `1/T Σ_j R[j,j]`: plasticity.

    Riemer et al., "Learning to Learn without Forgetting by Maximizing Transfer and Minimizing Interference",
    ICLR 2019. `ACC = LA + (T−1)/T · BWT`.
    """
    return _mean(_entry(accuracy, j, j) for j in range(len(checked(accuracy))))


def average_incremental_accuracy(accuracy: Rows) -> float:
    """The average accuracy on the tasks so far, averaged over the stream: `1/T Σ_i 1/i Σ_{j≤i} R[i,j]`.

    Rebuffi et al., "iCaRL", CVPR 2017, where it is taken over test samples and often leaves out i = 1.
    """
    tasks = range(len(checked(accuracy)))
    return _mean(_mean(_entry(accuracy, i, j) for j in range(i + 1)) for i in tasks)


def backward_transfer(accuracy: Rows) -> float:
    """BWT: the change of earlier tasks by later ones, `1/(T−1) Σ_{j<T} (R[T,j] − R[j,j])`; negative is forgetting.

    Lopez-Paz and Ranzato 2017. Díaz-Rodríguez et al. 2018 average `R[i,j] − R[j,j]` over all pairs i > j instead,
    and split the result into a positive and a negative part. Needs two tasks.
    """
    last = len(checked(accuracy, least=2)) - 1
    return _mean(_entry(accuracy, last, j) - _entry(accuracy, j, j) for j in range(last))


def forward_transfer(accuracy: Rows, untrained: Sequence[float]) -> float:
    """FWT: the effect of earlier tasks on later ones before these are learned, `1/(T−1) Σ_{j>1} (R[j−1,j] − b_j)`.

    Lopez-Paz and Ranzato 2017. Needs accuracies on tasks not learned yet (R above the diagonal), so a head that
    exists beforehand. Díaz-Rodríguez et al. 2018 average `R[i,j]` over all pairs i < j and subtract nothing.

    Args:
        accuracy: R, two tasks or more.
        untrained: b_j, the accuracy of an untrained model on each task.
    """
    tasks = len(checked(accuracy, least=2))
    if len(untrained) != tasks or not all(map(_is_share, untrained)):
        raise ForgetlessError(f"forward transfer over {tasks} tasks needs {tasks} untrained accuracies in [0, 1].")
    return _mean(_entry(accuracy, j - 1, j) - untrained[j] for j in range(1, tasks))


def forgetting(accuracy: Rows) -> float:
    """F: the decrease from the best accuracy that a task ever had, `1/(T−1) Σ_{j<T} (max_{l<T} R[l,j] − R[T,j])`.

    Chaudhry et al., "Riemannian Walk for Incremental Learning", ECCV 2018; F_T. Never less than
    `forgetting_mas`; negative where a task ended better than ever before (some codes clip that at 0). Entries
    above the diagonal count where they are known. Needs two tasks. "Forgetting" in the tables of `forgetless run` is
    `forgetting_mas`, not this.
    """
    last = len(checked(accuracy, least=2)) - 1
    return _mean(_best(accuracy, j) - _entry(accuracy, last, j) for j in range(last))


def forgetting_mas(accuracy: Rows) -> float:
    """The decrease since a task was learned, `1/(T−1) Σ_{j<T} (R[j,j] − R[T,j])` = −BWT.

    Aljundi et al., "Memory Aware Synapses", ECCV 2018, and De Lange et al., "A Continual Learning Survey", 2021;
    the paper prints the drop with a minus sign. Needs two tasks. It is "forgetting" in the tables of `forgetless run`
    and in the project's pages; `forgetting` takes the best accuracy in place of R[j,j], and is never less.
    """
    return -backward_transfer(accuracy)


def intransigence(accuracy: Rows, reference: Sequence[float]) -> float:
    """I: the cost of protecting old tasks to the new ones, `1/T Σ_k (R*_k − R[k,k])`; negative is a gain.

    Chaudhry et al. 2018, who report I_T, the last task's alone; R*_k is there the accuracy of a model trained on
    tasks 1…k together. Others take fine-tuning's R[k,k], which needs no old data; say which.

    Args:
        accuracy: R.
        reference: R*_k for each task.
    """
    tasks = len(checked(accuracy))
    if len(reference) != tasks or not all(map(_is_share, reference)):
        raise ForgetlessError(f"intransigence over {tasks} tasks needs {tasks} reference accuracies in [0, 1].")
    return _mean(reference[k] - _entry(accuracy, k, k) for k in range(tasks))


def average_anytime_accuracy(looks: Looks) -> float:
    """AAA: the average accuracy on the tasks that had begun, averaged over all looks: `1/M Σ_m 1/k_m Σ_{j≤k_m} a[m,j]`.

    Caccia et al., "New Insights on Reducing Abrupt Representation Change in Online Continual Learning", ICLR 2022. With
    looks at the ends of tasks alone it is `average_incremental_accuracy`. It depends on how often is looked.

    Args:
        looks: M looks, in order; the m-th has the accuracies of the k_m tasks that had begun.
    """
    return _mean(_mean(scores) for _, scores in _looked(looks))


def worst_case_accuracy(looks: Looks) -> float:
    """WC-Acc: `1/k a[M,k] + (1 − 1/k) min-ACC`, with `min-ACC = 1/(k−1) Σ_{j<k} min_m a[m,j]` over looks after task j.

    De Lange, van de Ven, Tuytelaars, "Continual Evaluation for Lifelong Learning: Identifying the Stability Gap", ICLR
    2023: what every earlier task fell to at its worst, with the present accuracy of the last. "After task j" are the
    looks at which a later task had begun. It falls with how often is looked: there after every step.

    Args:
        looks: as for `average_anytime_accuracy`; the last one has all k tasks.
    """
    found = _looked(looks)
    last = found[-1][1]
    worst = [min(scores[j] for _, scores in found if len(scores) > j + 1) for j in range(len(last) - 1)]
    return _mean([*worst, last[-1]])


def _looked(looks: Looks) -> Looks:
    """The looks themselves, if each has shares of as many tasks as the one before it, or of more."""
    counts = [len(scores) for _, scores in looks]
    if not counts or not counts[0] or counts != sorted(counts):
        raise ForgetlessError(f"looks have the accuracies of more and more tasks, from one on, not of {counts}.")
    for number, (_, scores) in enumerate(looks, 1):
        if not all(map(_is_share, scores)):
            raise ForgetlessError(f"look {number} has {list(scores)!r}, not accuracies in [0, 1].")
    return looks


def checked(accuracy: Rows, least: int = 1) -> Rows:
    """`accuracy` itself, if it is a square matrix of shares or None for `least` tasks or more.

    Raises:
        ForgetlessError: it is not.
    """
    tasks = len(accuracy)
    if any(len(row) != tasks for row in accuracy):
        raise ForgetlessError(f"R must be square: {tasks} rows of {[len(row) for row in accuracy]} entries.")
    if tasks < least:
        raise ForgetlessError(f"this needs {least} task{'s' * (least > 1)} or more; R has {tasks}.")
    for i, row in enumerate(accuracy):
        for j, entry in enumerate(row):
            if entry is not None and not _is_share(entry):
                raise ForgetlessError(f"R[{i + 1},{j + 1}] is {entry!r}, not an accuracy in [0, 1].")
    return accuracy


def _entry(accuracy: Rows, i: int, j: int) -> float:
    entry = accuracy[i][j]
    if entry is None:
        raise ForgetlessError(f"R[{i + 1},{j + 1}] is not known, and this needs it.")
    return entry


def _best(accuracy: Rows, j: int) -> float:
    """The best accuracy of task j before the last task, with every entry since it was learned known."""
    before = (row[j] for row in accuracy[:j])
    since = [_entry(accuracy, i, j) for i in range(j, len(accuracy) - 1)]
    return max([*since, *(entry for entry in before if entry is not None)])


def _is_share(value: object) -> bool:
    return isinstance(value, (int, float)) and 0 <= value <= 1


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return math.fsum(listed) / len(listed)
