"""`Recipe`: how each task of a stream is learned, the same for every method."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from forgetless.errors import ForgetlessError
from forgetless.learn import optimizers


@dataclass(frozen=True)
class Recipe:
    """How each task is learned, the same for every method.

    A backbone *is trained* if it is pretrained, and in any case from the second task on.

    Attributes:
        lr: the learning rate at the start of every task.
        epochs: passes over each task's training samples.
        batch_size: the most samples in a step; an epoch's steps are of equal size (±1), so none is tiny.
        optimizer: makes the optimizer, a new one for each task, as `optimizer(parameters, lr=lr)`: a class, or
            `functools.partial(torch.optim.AdamW, weight_decay=0.1)`. By default SGD with momentum 0.9.
        clip: the most the norm of all gradients may be; None for no limit.
        schedule: "constant", or "cosine" from `lr` to 0 over each task.
        warm_start: fit a new head to the features of a trained backbone before the first step; a head that other tasks
            use too is left as it is.
        freeze_batchnorm: batch-norm layers of a trained backbone keep their running statistics.

    Raises:
        ForgetlessError: a value out of range, or an optimizer that cannot be made.
    """

    lr: float
    epochs: int
    batch_size: int
    optimizer: optimizers.Factory = optimizers.sgd
    clip: float | None = None
    schedule: str = "constant"
    warm_start: bool = True
    freeze_batchnorm: bool = False

    def __post_init__(self) -> None:
        checks = {
            "lr": (math.isfinite(self.lr) and self.lr > 0, "a positive number"),
            "epochs": (self.epochs >= 1, "at least 1"),
            "batch_size": (self.batch_size >= 1, "at least 1"),
            "clip": (self.clip is None or (math.isfinite(self.clip) and self.clip > 0), "positive or None"),
            "schedule": (self.schedule in ("constant", "cosine"), "'constant' or 'cosine'"),
        }
        for name, (holds, must) in checks.items():
            if not holds:
                raise ForgetlessError(f"the recipe's {name} must be {must}, not {getattr(self, name)!r}.")
        optimizers.tried(self.optimizer, self.lr)

    def rate(self, step: int, steps: int | None) -> float:
        """The learning rate of step `step` (from 0) of a task's `steps`: `lr (1 + cos(π step/steps)) / 2`, or `lr`.

        Raises:
            ForgetlessError: a cosine over a stream that does not tell how many batches it has.
        """
        if self.schedule == "constant":
            return self.lr
        if steps is None:
            raise ForgetlessError(
                "the schedule 'cosine' needs to know how many batches a task has; give its stream a length, or take "
                "schedule='constant'."
            )
        return self.lr * (1 + math.cos(math.pi * step / steps)) / 2

    def worth(self, steps: int) -> float:
        """How many steps at the peak rate a task of so many steps is worth: `Σ_t rate(t) / lr`."""
        return sum(self.rate(step, steps) for step in range(steps)) / self.lr

    def settings(self) -> dict[str, str | int | float | bool | None]:
        """All fields, the optimizer as text: what defines the recipe in a run's configuration and in a checkpoint."""
        found = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        return {**found, "optimizer": optimizers.described(self.optimizer)}
