"""`--strength auto`: every task of a stream at a strength of its own, found by stability decay on that task alone."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from forgetless.errors import ForgetlessError
from forgetless.lab.datasets.reading.pictures import stratified
from forgetless.learn.heads import MultiHead
from forgetless.learn.metrics import Matrix
from forgetless.learn.task import Method, Recipe, Task
from forgetless.learn.train import accuracy, derive, learn
from forgetless.protect.strength.stability_decay import Decided, Trial, stability_decay

_TRAINED = 0.85  # of a task's training samples; the rest says how well it was learned
#: λ to begin at, by method (De Lange et al. 2021); the others begin at the survey's value for MAS.
STARTS = {
    "mas": 3.0,
    **dict.fromkeys(("ewc", "online-ewc", "si"), 400.0),
    **dict.fromkeys(("lwf", "ebll"), 10.0),
    **dict.fromkeys(("imm-mean", "imm-mode"), 0.01),
}


def search(
    model: MultiHead,
    task: Task,
    method: Method,
    recipe: Recipe,
    rates: Sequence[float],
    *,
    seed: int,
    start: float | None = None,
    drop: float = 0.2,
    factor: float = 0.5,
    most: int = 10,
    rise: bool = False,
    path: str | Path | None = None,
    on_trial: Callable[[Trial], None] | None = None,
) -> Decided:
    """Find the strength for the next task of a stream from that task's training samples alone.

    Every try learns the task on 85 % of them, class by class, with copies of the model and the method, and is judged
    on the rest. Neither the model nor the method is changed, and the test samples are not looked at. A try that
    diverges has an accuracy of 0.

    Args:
        model: the network before the task.
        task: the task.
        method: one that takes a strength, with all that it keeps of earlier tasks.
        recipe: how the task will be learned.
        rates: the learning rates to choose from.
        seed: decides the split and the trials.
        start: the strength of the first try; None for the survey's.
        drop: see `forgetless.stability_decay`, as for `factor` and `most`.
        factor: of a strength that lost more than `drop`.
        most: the most strengths to try.
        rise: look above a first strength that is accepted, too.
        path: a JSON file of trials, to go on after; see `forgetless.stability_decay`.
        on_trial: called with each new try.

    Raises:
        ForgetlessError: a method without a strength, a task too small to split, and all of `stability_decay`'s.
    """
    if method.strength is None:
        raise ForgetlessError(f"the method {method.name!r} takes no strength, so none can be found for it.")
    split = search_split(task, derive(seed, task.name, "split"))

    def train(rate: float, strength: float) -> float:
        own_model, own_method = copy.deepcopy((model, method))
        strengthen(own_method, strength)
        own_recipe = dataclasses.replace(recipe, lr=rate)
        try:
            outcome = learn(own_model, [split], own_method, own_recipe, seed=derive(seed, task.name, "tries"))
        except ForgetlessError:
            return 0.0
        found = outcome.accuracy[0][0]
        assert found is not None
        return found

    if start is None:
        start = next((STARTS[part] for part in method.name.split("+") if part in STARTS), STARTS["mas"])
    return stability_decay(
        train, float, rates, start=start, drop=drop, factor=factor, most=most, rise=rise, path=path, on_trial=on_trial
    )


def search_split(task: Task, seed: int) -> Task:
    """The task with 85 % of its training samples, class by class; the rest of them stand in for its test samples.

    Raises:
        ForgetlessError: so few samples that none is left over.
    """
    inputs, labels = task.train
    kept = max(round(_TRAINED * len(labels)), len(torch.unique(labels)))
    if kept >= len(labels):
        raise ForgetlessError(
            f"task {task.name!r} has {len(labels)} training samples for {len(task.classes)} classes: "
            "too few to hold some back, so no strength can be found on it."
        )
    chosen = stratified(labels, kept, seed)
    rest = torch.ones(len(labels), dtype=torch.bool)
    rest[chosen] = False
    train, held_back = (inputs[chosen], labels[chosen]), (inputs[rest], labels[rest])
    return dataclasses.replace(task, train=train, test=held_back)


def strengthen(method: Method, strength: float) -> None:
    """Give the method its λ from now on."""
    method.strength = strength  # type: ignore[misc]  # a field of every method that takes one


def learn_stream(
    model: MultiHead,
    tasks: Sequence[Task],
    method: Method,
    recipe: Recipe,
    rates: Sequence[float],
    *,
    seed: int,
    folder: str | Path | None = None,
    on_trial: Callable[[int, Trial], None] | None = None,
) -> tuple[Matrix, list[Decided | None]]:
    """Learn the tasks in order, each at the rate and strength found for it; the trials are kept in `folder`.

    A task that a network without knowledge begins with has nothing to protect and is not searched for. `on_try` is
    called with the position of a task, from 0, and each new try for it.

    Returns:
        R[i][j], the accuracy on task j after task i (None for j > i), and what was decided for each task.
    """
    matrix: Matrix = [[None] * len(tasks) for _ in tasks]
    decided: list[Decided | None] = []
    for row, task in enumerate(tasks):
        found = None
        if row:
            path = None if folder is None else Path(folder) / f"{row + 1}-trials.json"
            tried = None if on_trial is None else functools.partial(on_trial, row)
            found = search(model, task, method, recipe, rates, seed=seed, path=path, on_trial=tried)
            strengthen(method, float(found))
        decided.append(found)
        own = recipe if found is None else dataclasses.replace(recipe, lr=found.rate)
        learn(model, [task], method, own, seed=seed)
        for column, earlier in enumerate(tasks[: row + 1]):
            matrix[row][column] = accuracy(model, earlier, recipe.batch_size)
    return matrix, decided
