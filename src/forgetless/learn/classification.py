"""Classification: cross-entropy, accuracy, and what distillation compares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from forgetless.errors import ForgetlessError
from forgetless.learn.network import Network
from forgetless.learn.objective import Objective, Settings
from forgetless.learn.samples import Batch
from forgetless.learn.task import Task
from forgetless.learn.warm_start import warm_start
from forgetless.model import batches


@dataclass(frozen=True)
class Classification(Objective):
    """`−log softmax(z)[y]`, z the logits `[N, C]` and y the labels `[N]` (int64); the score is the accuracy.

    The network's heads decide the scenario: with a head per task the C classes are the task's own, with one head they
    are all classes so far, and label c of the task is column `model.first(task) + c`.

    Attributes:
        classes: the names of the task's classes; label c is `classes[c]`.
    """

    score: ClassVar[str] = "accuracy"
    logits: ClassVar[bool] = True
    warm_starts: ClassVar[bool] = True
    classes: tuple[str, ...]

    @property
    def outputs(self) -> int:
        """The number of classes."""
        return len(self.classes)

    def losses(self, model: Network, task: str, outputs: Tensor, batch: Batch) -> Tensor:
        """The cross-entropy of every sample, `[N]`.

        Raises:
            ForgetlessError: a label is outside the classes (on the CPU).
        """
        labels = batches.labels(batch)
        try:
            return F.cross_entropy(outputs, labels + model.first(task), reduction="none")
        except IndexError as error:
            low, high = int(labels.min()), int(labels.max())
            raise ForgetlessError(f"task {task!r} has labels {low}…{high} for {len(self.classes)} classes.") from error

    def scores(self, model: Network, task: str, outputs: Tensor, batch: Batch) -> Tensor:
        """1 where the largest logit is the label's and 0 elsewhere, `[N]`."""
        return (outputs.argmax(1) == batches.labels(batch) + model.first(task)).float()

    def divergence(self, now: Tensor, then: Tensor, temperature: float) -> Tensor:
        """`KL(softmax(z*/τ) ‖ softmax(z/τ))`, the mean over the batch.

        Where the head has grown since, the new classes have no probability before.
        """
        log_now = F.log_softmax(now / temperature, 1)[:, : then.shape[1]]
        log_then = F.log_softmax(then / temperature, 1)
        return F.kl_div(log_now, log_then, reduction="batchmean", log_target=True)

    def warm_start(self, model: Network, task: str, data: Any, batch_size: int) -> None:
        """Fit the head by logistic regression; see `forgetless.learn.warm_start`."""
        warm_start(model, task, data, batch_size)

    def check(self, data: Any, where: str) -> None:
        """Refuse tensors whose labels do not fit the inputs or the classes; datasets are checked as they are read.

        Raises:
            ForgetlessError: labels of another shape or type, of another number, none, or outside the classes.
        """
        if not (isinstance(data, tuple) and len(data) == 2):
            return
        inputs, labels = data
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

    def settings(self) -> Settings:
        """The number of classes."""
        return {"classes": len(self.classes)}


def classification(name: str, classes: tuple[str, ...], train: Any, test: Any) -> Task:
    """A classification task.

    Args:
        name: unique in its stream.
        classes: the names of its classes; label c is `classes[c]`.
        train: inputs `[N, …]` and labels `[N]` (int64), or another form of samples that `Task` takes.
        test: held-out samples in the same form.

    Raises:
        ForgetlessError: a part is empty, or its labels do not fit its inputs or the classes.
    """
    return Task(name, train, test, Classification(classes))


def classes_of(task: Task) -> tuple[str, ...]:
    """The names of the classes of a classification task.

    Raises:
        ForgetlessError: it is not a classification task.
    """
    if not isinstance(task.objective, Classification):
        raise ForgetlessError(f"task {task.name!r} has no classes: its score is {task.objective.score!r}.")
    return task.objective.classes
