"""Learning a stream of tasks: the one plain loop, resumable at any step to the bit-identical result."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer

from forgetless.errors import ForgetlessError
from forgetless.heads import MultiHead

PHASES = ("warm_start", "train", "measure", "evaluate")


@dataclass(frozen=True, eq=False)
class Task:
    """One distribution to learn.

    Attributes:
        name: unique in its stream.
        classes: the names of its classes; label c is `classes[c]`.
        train: inputs `[N, …]` as the trunk takes them and labels `[N]` (int64).
        test: the same for held-out samples; never used for learning.
    """

    name: str
    classes: tuple[str, ...]
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]

    def __post_init__(self) -> None:
        for part, (inputs, labels) in (("train", self.train), ("test", self.test)):
            where = f"the {part} part of task {self.name!r}"
            if labels.dtype != torch.int64 or labels.ndim != 1:
                raise ForgetlessError(
                    f"{where} needs int64 labels [N], not {labels.dtype} {tuple(labels.shape)}."
                )
            if len(inputs) != len(labels):
                raise ForgetlessError(f"{where} has {len(inputs)} inputs and {len(labels)} labels.")
            if len(labels) == 0:
                raise ForgetlessError(f"{where} is empty.")
            if int(labels.min()) < 0 or int(labels.max()) >= len(self.classes):
                raise ForgetlessError(
                    f"{where} has labels {int(labels.min())} to {int(labels.max())} for {len(self.classes)} classes."
                )


@dataclass(frozen=True)
class Recipe:
    """How a task is learned, the same for every method.

    Attributes:
        lr: the learning rate at the start of every task.
        epochs: passes over each task's training samples.
        batch_size: the most samples in a step; an epoch's steps are of equal size (±1), so none is tiny.
        momentum: of SGD.
        weight_decay: of SGD.
        clip: the most the norm of all gradients may be; None for no limit.
        schedule: "constant", or "cosine" from `lr` to 0 over each task.
        warm_start: fit a new head to the features of a trunk that knows something before the first step.
        hold_statistics: batch-norm layers of a trunk that knows something keep their running statistics.
    """

    lr: float
    epochs: int
    batch_size: int
    momentum: float = 0.9
    weight_decay: float = 0.0
    clip: float | None = None
    schedule: str = "constant"
    warm_start: bool = True
    hold_statistics: bool = False


class Method(Protocol):
    """A way to learn a stream. The loop calls it at fixed points; what it keeps, it keeps itself."""

    name: str
    strength: float | None

    def begin(self, model: MultiHead, task: Task, optimizer: Optimizer) -> None:
        """Before the first step of a task, its head in place; attach to the optimiser here."""

    def penalty(self, inputs: Tensor, labels: Tensor, logits: Tensor) -> Tensor | None:
        """What is added to a batch's loss, a scalar; None for nothing."""

    def end(self, model: MultiHead, task: Task) -> None:
        """After the last step of a task: measure, consolidate, detach."""

    def state(self) -> dict[str, Tensor]:
        """All that a resumed run needs, at any step."""

    def load_state(self, model: MultiHead, tensors: dict[str, Tensor]) -> None:
        """Take `state` back; in the middle of a task `begin` has been called before."""


@dataclass(frozen=True)
class Progress:
    """Where a run is. Numbers count from 1; `step` of `steps` are the task's."""

    task: int
    tasks: int
    name: str
    phase: str
    epoch: int = 0
    step: int = 0
    steps: int = 0
    loss: float = math.nan


@dataclass
class Outcome:
    """What learning a stream came to.

    Attributes:
        accuracy: R[i][j], the share of task j's test samples classified rightly after learning task i; None for j > i,
            where task j has no head yet.
        seconds: phase ("warm_start", "train", "measure", "evaluate") → seconds spent in it, over all resumes.
    """

    accuracy: list[list[float | None]]
    seconds: dict[str, float] = field(default_factory=dict)


def learn(
    model: MultiHead,
    tasks: Sequence[Task],
    method: Method,
    recipe: Recipe,
    *,
    seed: int,
    checkpoint: Path | None = None,
    every: float = 30.0,
    on_progress: Callable[[Progress], None] | None = None,
) -> Outcome:
    """Learn `tasks` in order by `method`; `model` is trained in place and gets a head per task.

    Args:
        model: the network.
        tasks: the stream; names unique.
        method: a fresh method (`forgetless.methods.create`).
        recipe: how each task is learned.
        seed: decides the order of samples, the heads' first weights and dropout, the same for every method.
        checkpoint: a file to continue from if it exists, and to keep up to date; removed by nobody.
        every: seconds between checkpoints inside a task.
        on_progress: called before each phase and after each step.
    """
    report = on_progress or (lambda progress: None)
    accuracy: list[list[float | None]] = [[None] * len(tasks) for _ in tasks]
    for index, task in enumerate(tasks):
        torch.manual_seed(_derive(seed, task.name))
        model.grow(task.name, len(task.classes))
        optimizer = torch.optim.SGD(
            model.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay
        )
        method.begin(model, task, optimizer)
        model.train()
        steps_per_epoch = math.ceil(len(task.train[1]) / recipe.batch_size)
        steps, step = steps_per_epoch * recipe.epochs, 0
        for epoch in range(recipe.epochs):
            order = torch.randperm(
                len(task.train[1]), generator=torch.Generator().manual_seed(_derive(seed, task.name, epoch))
            )
            for chosen in order.tensor_split(steps_per_epoch):
                inputs, labels = task.train[0][chosen], task.train[1][chosen]
                logits = model(inputs, task.name)
                loss = F.cross_entropy(logits, labels)
                penalty = method.penalty(inputs, labels, logits)
                if penalty is not None:
                    loss = loss + penalty
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
                report(
                    Progress(
                        index + 1, len(tasks), task.name, "train", epoch + 1, step, steps, float(loss.detach())
                    )
                )
        method.end(model, task)
        model.eval()
        for j, old in enumerate(tasks[: index + 1]):
            with torch.no_grad():
                accuracy[index][j] = float(
                    (model(old.test[0], old.name).argmax(1) == old.test[1]).float().mean()
                )
    return Outcome(accuracy, dict.fromkeys(PHASES, 0.0))


def _derive(seed: int, *what: object) -> int:
    """A seed of its own for every purpose: a pure function of `seed` and `what`."""
    digest = hashlib.sha256(repr((seed, *what)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
