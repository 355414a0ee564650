"""A strength for the next task of a stream, found by stability decay on that task's training samples alone."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import Subset, TensorDataset

from forgetless.errors import ForgetlessError
from forgetless.lab.datasets.reading.pictures import stratified
from forgetless.lab.published.de_lange_2021 import STARTS
from forgetless.learn.classification import classes_of
from forgetless.learn.evaluation import evaluate
from forgetless.learn.method import Method
from forgetless.learn.metrics import Matrix
from forgetless.learn.network import Network
from forgetless.learn.recipe import Recipe
from forgetless.learn.seeding import derive
from forgetless.learn.task import Task
from forgetless.learn.train import learn
from forgetless.protect.strength.stability_decay import Decided, Trial, refuse, stability_decay

_TRAINED = 0.85  # of a task's training samples; the rest says how well it was learned


@dataclass(frozen=True)
class Search:
    """How a strength is searched for; see `forgetless.stability_decay`.

    Attributes:
        start: the first strength to try; None for the one that De Lange et al. 2021 start the method at.
        drop: the share of fine-tuning's accuracy that may be lost.
        factor: of a strength that lost more.
        most: the most strengths to try.
        rise: whether to look above a first strength that is accepted, too.

    Raises:
        ForgetlessError: a setting out of range.
    """

    start: float | None = None
    drop: float = 0.2
    factor: float = 0.5
    most: int = 10
    rise: bool = False

    def __post_init__(self) -> None:
        refuse((1.0,), 1.0 if self.start is None else self.start, self.drop, self.factor, self.most)

    def started_for(self, method: Method) -> Search:
        """The same search with a start for the method."""
        if self.start is not None:
            return self
        start = next((STARTS[part] for part in method.name.split("+") if part in STARTS), STARTS["mas"])
        return dataclasses.replace(self, start=start)


def search(
    model: Network,
    task: Task,
    method: Method,
    recipe: Recipe,
    how: Search,
    *,
    seed: int,
    path: str | Path | None = None,
    on_trial: Callable[[Trial], None] | None = None,
) -> Decided:
    """Find the strength for the next task of a stream from that task's training samples alone.

    Every trial learns the task on 85 % of them, class by class, with copies of the model and the method, and is judged
    on the rest. Neither the model nor the method is changed, and the test samples are not used. A trial that diverges
    has an accuracy of 0.

    Args:
        model: the network before the task.
        task: the task.
        method: one that takes a strength, with all that it keeps of earlier tasks.
        recipe: how the task will be learned.
        how: the settings of the search.
        seed: decides the split and the trials.
        path: a file of trials; those that are in it are not made again.
        on_trial: called with each new trial.

    Raises:
        ForgetlessError: a method without a strength, a task too small to split, a file of trials that is damaged or of
            another search, and all that `stability_decay` raises.
    """
    if method.strength is None:
        raise ForgetlessError(f"the method {method.name!r} takes no strength, so none can be found for it.")
    split = search_split(task, derive(seed, task.name, "split"))

    def train(rate: float, strength: float) -> float:
        own_model, own_method = copy.deepcopy((model, method))
        strengthen(own_method, strength)
        own_recipe = dataclasses.replace(recipe, lr=rate)
        try:
            # "tries" is part of what decides the random numbers; another word would give other results.
            outcome = learn(own_model, [split], own_method, own_recipe, seed=derive(seed, task.name, "tries"))
        except ForgetlessError:
            return 0.0
        found = outcome.accuracy[0][0]
        assert found is not None
        return found

    settings = dataclasses.asdict(how.started_for(method))
    return stability_decay(train, float, (recipe.lr,), **settings, path=path, on_trial=on_trial)


def search_split(task: Task, seed: int) -> Task:
    """The task with 85 % of its training samples, class by class; the rest of them stand in for its test samples.

    Raises:
        ForgetlessError: so few samples that none is left over.
    """
    inputs, labels = task.train
    kept = max(round(_TRAINED * len(labels)), len(torch.unique(labels)))
    if kept >= len(labels):
        raise ForgetlessError(
            f"task {task.name!r} has {len(labels)} training samples for {len(classes_of(task))} classes: "
            "too few to hold some back, so no strength can be found on it."
        )
    chosen = stratified(labels, kept, seed)
    rest = torch.ones(len(labels), dtype=torch.bool)
    rest[chosen] = False
    whole = TensorDataset(inputs, labels)  # read by number: nothing is copied
    train, held_back = Subset(whole, chosen.tolist()), Subset(whole, rest.nonzero().flatten().tolist())
    return dataclasses.replace(task, train=train, test=held_back)


def strengthen(method: Method, strength: float) -> None:
    """Give the method its λ from now on."""
    method.set_strength(strength)


def learn_stream(
    model: Network,
    tasks: Sequence[Task],
    method: Method,
    recipe: Recipe,
    how: Search,
    *,
    seed: int,
    folder: str | Path | None = None,
    on_trial: Callable[[int, Trial], None] | None = None,
) -> tuple[Matrix, list[Decided | None]]:
    """Learn the tasks in order, each at the strength found for it; the trials are kept in `folder`.

    Before the first task there is nothing to protect, and no search. `on_trial` is called with the position of a task,
    from 0, and each new trial for it.

    Returns:
        R[i][j], the accuracy on task j after task i (None for j > i), and what was decided for each task.
    """
    matrix: Matrix = [[None] * len(tasks) for _ in tasks]
    decided: list[Decided | None] = []
    for row, task in enumerate(tasks):
        found = None
        if row:
            path = None if folder is None else Path(folder) / f"{row + 1}-trials.json"
            told = None if on_trial is None else functools.partial(on_trial, row)
            found = search(model, task, method, recipe, how, seed=seed, path=path, on_trial=told)
            strengthen(method, float(found))
        decided.append(found)
        learn(model, [task], method, recipe, seed=seed)
        for column, earlier in enumerate(tasks[: row + 1]):
            matrix[row][column] = evaluate(model, earlier, recipe.batch_size)
    return matrix, decided
