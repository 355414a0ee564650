"""`Objective`: what a task asks of a network: the loss that is trained on, and the score that goes into R."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from forgetless.errors import ForgetlessError
from forgetless.learn.network import Network
from forgetless.learn.samples import Batch, samples_of
from forgetless.model import batches

Settings = dict[str, str | int | float | bool | None]


class Objective(abc.ABC):
    """The loss and the score of a task. The training loop and the methods know nothing else about what is learned.

    Stateless: an objective may be copied, pickled and shared by tasks. A subclass defines `outputs`, `losses` and
    `scores`, or `evaluate` in place of `scores` where the score of a task is not a mean over samples.

    Attributes:
        score: the name of the score. Whatever it is, it is a share in [0, 1] and 1 is best, so that R and the metrics
            mean the same for every objective. Map a measure that runs otherwise: a perplexity p to 1/p.
        logits: whether the outputs are logits of classes, `[N, C]` or `[N, T, C]`. Fisher information is that of a
            categorical distribution then, and else that of Gaussians of unit variance around the outputs.
        warm_starts: whether `warm_start` fits a head.
    """

    score: ClassVar[str]
    logits: ClassVar[bool] = False
    warm_starts: ClassVar[bool] = False

    @property
    @abc.abstractmethod
    def outputs(self) -> int:
        """How many outputs the task's head has: classes, dimensions of an embedding, a vocabulary."""

    @abc.abstractmethod
    def losses(self, model: Network, task: str, outputs: Tensor, batch: Batch) -> Tensor:
        """The loss of every sample.

        Args:
            model: the network that gave the outputs.
            task: the name of the task.
            outputs: `[N, …]`, of the head of `task`.
            batch: the samples, with their targets, on the network's device.

        Returns:
            `[N]`; the loop trains on the mean, replay on the mean over the samples it draws.
        """

    def scores(self, model: Network, task: str, outputs: Tensor, batch: Batch) -> Tensor:
        """The score of every sample, `[N]`, each in [0, 1]; arguments as for `losses`."""
        raise NotImplementedError

    @torch.no_grad()
    def evaluate(self, model: Network, task: str, data: Any, batch_size: int) -> float:
        """The mean of `scores` over the samples of `data`, in eval mode.

        Args:
            model: the network; left in eval mode.
            task: the name of the task.
            data: held-out samples; see `forgetless.learn.task.Task`.
            batch_size: the most samples at once.

        Raises:
            ForgetlessError: outputs that are NaN or Inf, or no samples.
        """
        total, count = 0.0, 0
        for outputs, batch in answers(model, task, data, batch_size):
            total += float(self.scores(model, task, outputs, batch).sum())
            count += len(outputs)
        if not count:
            raise ForgetlessError(f"task {task!r} has no samples to be evaluated on.")
        return total / count

    def divergence(self, now: Tensor, then: Tensor, temperature: float) -> Tensor:
        """How far outputs have moved, a scalar: the mean of `(z − z*)²`. For methods that keep old outputs.

        Args:
            now: `[N, …, C]`.
            then: `[N, …, C*]` with C* ≤ C: the first C* outputs, before the task.
            temperature: τ, for objectives whose outputs are logits.
        """
        return F.mse_loss(now[..., : then.shape[-1]], then)

    def check(self, data: Any, where: str) -> None:
        """Refuse samples that do not fit, as far as can be told without reading a dataset; `where` names them.

        Raises:
            ForgetlessError: they do not fit.
        """
        return

    def prepare(self, model: Network, task: str) -> bool:
        """Make room for the task in the network; gives whether it got a head that no earlier task has used."""
        return model.grow(task, self.outputs)

    def warm_start(self, model: Network, task: str, data: Any, batch_size: int) -> None:
        """Fit the new head of `task` to the present features of the training samples `data`; nothing else changes."""
        return

    def settings(self) -> Settings:
        """What defines it, for checkpoints: its dataclass fields, as text where they are not numbers."""
        if not dataclasses.is_dataclass(self):
            return {}
        found = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        plain = (str, int, float, bool, type(None))
        return {name: value if isinstance(value, plain) else repr(value) for name, value in found.items()}


def answers(model: Network, task: str, data: Any, batch_size: int) -> Iterator[tuple[Tensor, Batch]]:
    """The outputs of the network in eval mode, batch by batch, in the order of the samples; without gradients.

    Args:
        model: the network; put into eval mode.
        task: whose head answers.
        data: samples; see `forgetless.learn.task.Task`.
        batch_size: the most samples at once.

    Yields:
        Outputs `[N, …]` and the batch, on the network's device.

    Raises:
        ForgetlessError: outputs that are NaN or Inf.
    """
    model.eval()
    device = next(model.parameters()).device
    for read in samples_of(data).batches(batch_size):
        batch = batches.mapped(read, lambda tensor: tensor.to(device))
        with torch.no_grad():
            outputs: Tensor = model(batches.inputs(batch), task)
        if not bool(torch.isfinite(outputs).all()):
            raise ForgetlessError(f"the outputs of task {task!r} hold NaN or Inf in eval mode.")
        yield outputs, batch
