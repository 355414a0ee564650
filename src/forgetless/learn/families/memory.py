"""Samples of earlier tasks, for the methods that may keep some."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from forgetless.errors import ForgetlessError
from forgetless.learn.families.state import from_leaves, leaves
from forgetless.learn.network import Network
from forgetless.learn.objective import Objective
from forgetless.learn.samples import Batch
from forgetless.learn.task import Task
from forgetless.model import batches


@dataclass(frozen=True)
class Remembered:
    """Samples of one earlier task.

    Attributes:
        task: its name.
        objective: the loss that they are replayed with.
        batch: the samples with their targets.
        outputs: what the network gave for them when the task ended, `[n, …]`, where the memory keeps that.
    """

    task: str
    objective: Objective
    batch: Batch
    outputs: Tensor | None = None

    def __len__(self) -> int:
        return batches.size(self.batch)

    def take(self, chosen: Tensor) -> Remembered:
        """The samples of the numbers `chosen`."""
        outputs = None if self.outputs is None else self.outputs[chosen]
        return replace(self, batch=batches.mapped(self.batch, lambda tensor: tensor[chosen]), outputs=outputs)


class Memory:
    """Random training samples of the tasks so far, in equal shares of a budget, or all of them.

    They stay where the task's samples are read, which is the CPU as a rule.

    Attributes:
        budget: the most samples that it holds; None for no limit.
        parts: task name → its samples in random order; sorted by name, so that draws can be repeated.
    """

    def __init__(self, budget: int | None) -> None:
        self.budget = budget
        self.parts: dict[str, Remembered] = {}

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts.values())

    def add(self, task: Task, answers: Callable[[Any], Tensor] | None = None) -> None:
        """Take in samples of a task that was learned, and drop some of the others where the budget asks for it.

        Args:
            task: gives its training samples, which must be readable by number.
            answers: inputs → outputs to be kept with them; None to keep none.
        """
        size = len(task.samples)
        share = size if self.budget is None else self.budget // (len(self.parts) + 1)
        order = torch.randperm(size)[:share]
        parts = dict(self.parts)
        if self.budget is not None:
            # Indexed copies: a slice would keep all of the task in memory.
            parts = {name: part.take(torch.arange(min(share, len(part)))) for name, part in parts.items()}
        batch = task.samples.take(order)
        outputs = None if answers is None or not share else answers(batches.inputs(batch))
        parts[task.name] = Remembered(task.name, task.objective, batch, outputs)
        self.parts = dict(sorted(parts.items()))

    def draw(self, samples: int) -> list[Remembered]:
        """At most `samples`, uniformly from all that is kept, by task."""
        chosen = torch.randperm(len(self))[:samples]
        drawn, first = [], 0
        for part in self.parts.values():
            mine = chosen[(chosen >= first) & (chosen < first + len(part))] - first
            first += len(part)
            if len(mine):
                drawn.append(part.take(mine))
        return drawn

    def draw_each(self, samples: int) -> list[Remembered]:
        """At most `samples` of every task."""
        return [part.take(torch.randperm(len(part))[:samples]) for part in self.parts.values()]

    def tree(self) -> dict[str, Any]:
        """All samples, as task name → {"batch": …, "outputs": …}."""
        found: dict[str, Any] = {}
        for name, part in self.parts.items():
            outputs = {} if part.outputs is None else {"outputs": part.outputs}
            found[name] = {"batch": leaves(part.batch), **outputs}
        return found

    def load(self, tree: Mapping[str, Any], tasks: Sequence[Task]) -> None:
        """Take back what `tree` gave; `tasks` give the objectives.

        Raises:
            ForgetlessError: samples of a task that is not among them.
        """
        objectives = {task.name: task.objective for task in tasks}
        missing = sorted(set(tree) - set(objectives))
        if missing:
            raise ForgetlessError(f"the memory holds samples of task {missing[0]!r}, which is not one of this stream.")
        self.parts = {
            name: Remembered(name, objectives[name], from_leaves(kept["batch"]), kept.get("outputs"))
            for name, kept in sorted(tree.items())
        }


def recall(model: Network, drawn: list[Remembered]) -> list[tuple[Tensor, Tensor]]:
    """Outputs `[n, …]` and losses `[n]` of each task's samples, after one pass of all through the backbone."""
    device = next(model.parameters()).device
    moved = [batches.mapped(each.batch, lambda tensor: tensor.to(device)) for each in drawn]
    features = model.backbone(_joined([batches.inputs(each) for each in moved]))
    found = []
    for each, batch, share in zip(drawn, moved, torch.split(features, [len(each) for each in drawn]), strict=True):
        outputs = model.head(each.task)(share)
        found.append((outputs, each.objective.losses(model, each.task, outputs, batch)))
    return found


def mean_loss(recalled: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The mean loss over all samples that `recall` gave."""
    return torch.stack([losses.sum() for _, losses in recalled]).sum() / sum(len(losses) for _, losses in recalled)


def distance_from(recalled: list[tuple[Tensor, Tensor]], drawn: list[Remembered]) -> Tensor:
    """`1/n Σ_n ‖z_n − z*_n‖² / C`: how far outputs have moved since they were kept.

    Args:
        recalled: what `recall` gave for them.
        drawn: the samples with the outputs kept, z*; of a head that has grown since, those that it had then count.
    """
    moved = [
        F.mse_loss(now[..., : then.shape[-1]], then.to(now.device)) * len(then)
        for (now, _), then in zip(recalled, (each.outputs for each in drawn), strict=True)
        if then is not None
    ]
    return torch.stack(moved).sum() / sum(len(each) for each in drawn)


def _joined(inputs: list[Any]) -> Any:
    """Inputs of several tasks as one batch."""
    if isinstance(inputs[0], Mapping):
        return {key: torch.cat([each[key] for each in inputs]) for key in inputs[0]}
    return torch.cat(inputs)
