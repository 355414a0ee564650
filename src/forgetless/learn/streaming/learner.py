"""`Learner`: what a way to learn a stream in one pass defines, and when the loop calls it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from forgetless.learn.families.memory import Remembered, mean_loss
from forgetless.learn.families.state import Tensors, pack, unpack
from forgetless.learn.network import Network
from forgetless.learn.streaming.budget import Budget
from forgetless.learn.streaming.passes import Passes
from forgetless.learn.streaming.reservoir import Reservoir
from forgetless.learn.task import Task

if TYPE_CHECKING:
    from forgetless.protect.anchor import Anchor


@dataclass
class Learner:
    """Learn each batch of a stream in a few updates, and keep what is needed. This class is fine-tuning.

    Its public fields are its settings: with its name they identify it in a checkpoint. Random numbers come from torch's
    global generator, which is seeded before each call of `glance`, `keep` and `border`; what a glance draws from the
    buffer it draws first, so that learners of equal buffers replay the same samples.

    Attributes:
        name: what it is called in the registry and in every table.
        passes: the samples that went forward and backward so far.
    """

    name: ClassVar[str]
    passes: Passes = field(default_factory=Passes, init=False, repr=False)
    _model: Network = field(init=False, repr=False)
    _optimizer: Optimizer = field(init=False, repr=False)
    _budget: Budget = field(init=False, repr=False)
    _tasks: Sequence[Task] = field(init=False, repr=False)

    def settings(self) -> dict[str, str | int | float | bool | None]:
        """Its public fields, which define it together with its name."""
        return {each.name: getattr(self, each.name) for each in dataclasses.fields(self) if each.init}

    def begin(self, model: Network, tasks: Sequence[Task], optimizer: Optimizer, budget: Budget) -> None:
        """Called once, on the network as it is before the stream, with outputs for all tasks.

        Args:
            model: the network.
            tasks: the stream.
            optimizer: over all parameters, for the whole stream.
            budget: how many updates, and how large a buffer.

        Raises:
            ForgetlessError: a network or an optimizer that it cannot work with.
        """
        self._model, self._tasks, self._optimizer, self._budget = model, tasks, optimizer, budget

    def glance(self, part: Remembered, batch: int, last: bool) -> float:
        """Take one update on a batch of the stream.

        Args:
            part: the batch, with its task.
            batch: the number of the batch in the whole stream, from 0.
            last: whether it is the last update on it.

        Returns:
            The loss that was minimized; 0 where nothing was learned.
        """
        return self._update(mean_loss(self.passes.recall(self._model, [part])), [part])

    def keep(self, part: Remembered) -> None:
        """Called after the last update on a batch: keep some of it."""
        return

    def border(self, task: Task, batches: int) -> None:
        """Called after the last batch of a task.

        Args:
            task: the task.
            batches: how many batches of the stream there were.
        """
        return

    def anchors(self) -> tuple[Anchor, ...]:
        """The anchors that protect the weights now, to be looked at; none for a learner that has none."""
        return ()

    def figures(self) -> dict[str, Any]:
        """What it found out on the way, for the results; JSON-able."""
        return {}

    def tree(self) -> dict[str, Any]:
        """Everything that a resumed run needs beside the network and the optimizer, as tensors by name."""
        return {}

    def load(self, tree: dict[str, Any]) -> None:
        """Take back what `tree` gave; `begin` was called before."""
        return

    def state(self) -> Tensors:
        """`tree` and the counts, as a checkpoint holds them."""
        counts = torch.tensor([self.passes.forward, self.passes.backward])
        return pack({"own": self.tree(), "passes": counts})

    def load_state(self, tensors: Tensors) -> None:
        """Take back what `state` gave."""
        kept = unpack(tensors)
        self.passes.forward, self.passes.backward = kept["passes"].tolist()
        self.load(kept.get("own", {}))

    @property
    def _weights(self) -> list[nn.Parameter]:
        return [weights for weights in self._model.parameters() if weights.requires_grad]

    def _update(self, loss: Tensor, parts: list[Remembered]) -> float:
        """A backward pass and a step, unless the loss is NaN or Inf: the loop refuses that one."""
        found = float(loss.detach())
        if math.isfinite(found):
            self._optimizer.zero_grad()
            self.passes.backpropagate(loss, parts)
            self._shape()
            self._optimizer.step()
        return found

    def _shape(self) -> None:
        """Change the gradients before the step."""
        return


@dataclass
class Replaying(Learner):
    """Learn samples from a reservoir along with those of the stream: the mean loss of both, each with weight 1.

    Stream and replay go through the network together, so that batch norm sees one batch.
    """

    _buffer: Reservoir = field(init=False, repr=False)

    def begin(self, model: Network, tasks: Sequence[Task], optimizer: Optimizer, budget: Budget) -> None:
        """Begin with an empty buffer."""
        super().begin(model, tasks, optimizer, budget)
        self._buffer = Reservoir(budget.buffer, tasks)

    def glance(self, part: Remembered, batch: int, last: bool) -> float:
        """One update on the batch and on samples from the buffer."""
        parts = [part, *self._drawn(part)]
        recalled = self.passes.recall(self._model, parts)
        return self._update(self._loss(parts, recalled), parts)

    def keep(self, part: Remembered) -> None:
        """Offer the batch to the buffer."""
        self._buffer.add(part)

    def tree(self) -> dict[str, Any]:
        """The buffer."""
        return {"buffer": self._buffer.tree()}

    def load(self, tree: dict[str, Any]) -> None:
        """Take the buffer back."""
        self._buffer.load(tree["buffer"])

    def _drawn(self, part: Remembered) -> list[Remembered]:
        """What is replayed along with the batch."""
        return self._buffer.draw(self._budget.replay)

    def _loss(self, parts: list[Remembered], recalled: list[tuple[Tensor, Tensor]]) -> Tensor:
        stream = mean_loss(recalled[:1])
        return stream + mean_loss(recalled[1:]) if len(parts) > 1 else stream
