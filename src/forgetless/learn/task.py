"""What is learned, how, and by what: `Task`, `Recipe`, `Method`."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from forgetless.errors import ForgetlessError
from forgetless.learn.heads import MultiHead


@dataclass(frozen=True, eq=False)
class Task:
    """One distribution to learn.

    Attributes:
        name: unique in its stream.
        classes: the names of its classes; label c is `classes[c]`.
        train: inputs `[N, …]` as the backbone takes them and labels `[N]` (int64).
        test: the same for held-out samples; never used for learning.

    Raises:
        ForgetlessError: a part is empty, or its labels do not fit its inputs or the classes.
    """

    name: str
    classes: tuple[str, ...]
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]

    def __post_init__(self) -> None:
        for part, (inputs, labels) in (("train", self.train), ("test", self.test)):
            where = f"the {part} part of task {self.name!r}"
            if labels.dtype != torch.int64 or labels.ndim != 1:
                kind = str(labels.dtype).removeprefix("torch.")
                raise ForgetlessError(f"{where} needs int64 labels [N], not {kind} {list(labels.shape)}.")
            if len(inputs) != len(labels):
                raise ForgetlessError(f"{where} has {len(inputs)} inputs and {len(labels)} labels.")
            if len(labels) == 0:
                raise ForgetlessError(f"{where} is empty.")
            low, high = int(labels.min()), int(labels.max())
            if low < 0 or high >= len(self.classes):
                raise ForgetlessError(f"{where} has labels {low}…{high} for {len(self.classes)} classes.")


@dataclass(frozen=True)
class Recipe:
    """How each task is learned, the same for every method.

    A backbone *knows something* if it is pretrained, and in any case from the second task on.

    Attributes:
        lr: the learning rate at the start of every task.
        epochs: passes over each task's training samples.
        batch_size: the most samples in a step; an epoch's steps are of equal size (±1), so none is tiny.
        optimizer: "sgd" or "adam"; a new one for each task.
        momentum: of SGD.
        weight_decay: added to the gradient as `weight_decay · θ`.
        clip: the most the norm of all gradients may be; None for no limit.
        schedule: "constant", or "cosine" from `lr` to 0 over each task.
        warm_start: fit a new head to the features of a backbone that knows something, before the first step; a head
            that other tasks use too is left as it is.
        freeze_batchnorm: batch-norm layers of a backbone that knows something keep their running statistics.

    Raises:
        ForgetlessError: a value that makes no sense.
    """

    lr: float
    epochs: int
    batch_size: int
    optimizer: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 0.0
    clip: float | None = None
    schedule: str = "constant"
    warm_start: bool = True
    freeze_batchnorm: bool = False

    def __post_init__(self) -> None:
        checks = {
            "lr": (math.isfinite(self.lr) and self.lr > 0, "a positive number"),
            "epochs": (self.epochs >= 1, "at least 1"),
            "batch_size": (self.batch_size >= 1, "at least 1"),
            "optimizer": (self.optimizer in ("sgd", "adam"), "'sgd' or 'adam'"),
            "momentum": (0 <= self.momentum < 1, "in [0, 1)"),
            "weight_decay": (math.isfinite(self.weight_decay) and self.weight_decay >= 0, "zero or positive"),
            "clip": (self.clip is None or (math.isfinite(self.clip) and self.clip > 0), "positive or None"),
            "schedule": (self.schedule in ("constant", "cosine"), "'constant' or 'cosine'"),
        }
        for name, (holds, must) in checks.items():
            if not holds:
                raise ForgetlessError(f"the recipe's {name} must be {must}, not {getattr(self, name)!r}.")

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of step `step` (from 0) of a task's `steps`."""
        if self.schedule == "constant":
            return self.lr
        return self.lr * (1 + math.cos(math.pi * step / steps)) / 2


@dataclass
class Method:
    """A way to learn a stream. The loop calls it at fixed points, and what must be kept it keeps itself.

    As it stands it adds nothing, which is fine-tuning; a method overrides what it needs. Its public fields are its
    settings: with its name, they are what a checkpoint knows it by. Random numbers come from torch's global generator,
    which is seeded before each call of `begin`, `end` and each step.

    Attributes:
        name: what it is called in the registry and in every table.
    """

    name: ClassVar[str]

    @property
    def strength(self) -> float | None:
        """λ, constant over the stream; None for a method without."""
        return None

    def settings(self) -> dict[str, str | int | float | bool | None]:
        """Its public fields: with its name, what defines it."""
        return {each.name: getattr(self, each.name) for each in dataclasses.fields(self) if each.init}

    def begin(self, model: MultiHead, task: Task, optimizer: Optimizer) -> None:
        """Before a task's first step and its head's warm start: attach to the optimizer, remember the model."""
        return

    def penalty(self, inputs: Tensor, labels: Tensor, logits: Tensor) -> Tensor | None:
        """A scalar to be added to the batch's loss; None for nothing. `labels` are columns of `logits`."""
        return None

    def end(self, model: MultiHead, task: Task) -> None:
        """After the last step of a task: measure, consolidate, detach."""
        return

    def state(self) -> dict[str, Tensor]:
        """Everything a resumed run needs, between any two steps and between tasks."""
        return {}

    def load_state(self, model: MultiHead, tensors: dict[str, Tensor]) -> None:
        """Take `state` back. Inside a task, `begin` was called just before, on the current weights."""
        return
