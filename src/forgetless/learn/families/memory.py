"""Samples of earlier tasks, for the methods that may keep some."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from forgetless.learn.heads import MultiHead
from forgetless.learn.task import Task


class Drawn(NamedTuple):
    """Samples of one earlier task; `logits` where the memory keeps them."""

    task: str
    inputs: Tensor
    labels: Tensor
    logits: Tensor | None = None


class Memory:
    """Random training samples of the tasks so far, in equal shares of a budget, or all of them.

    Attributes:
        budget: the most samples it holds; None for no limit.
        parts: task name → its inputs, labels and maybe logits, in random order; sorted by name, so that draws can be
            repeated.
    """

    def __init__(self, budget: int | None) -> None:
        self.budget = budget
        self.parts: dict[str, tuple[Tensor, ...]] = {}

    def __len__(self) -> int:
        return sum(len(part[1]) for part in self.parts.values())

    def add(self, task: Task, answers: Callable[[Tensor], Tensor] | None = None) -> None:
        """Take in samples of a task that was learned; the others make room.

        Args:
            task: gives its training samples.
            answers: inputs → logits to be kept with them; None to keep none.
        """
        inputs, labels = task.train
        share = len(labels) if self.budget is None else self.budget // (len(self.parts) + 1)
        order = torch.randperm(len(labels))[:share]
        parts = dict(self.parts)
        if self.budget is not None:
            # Clones: a slice would keep all of the task in memory.
            parts = {name: tuple(each[:share].clone() for each in part) for name, part in parts.items()}
        kept: tuple[Tensor, ...] = (inputs[order], labels[order])
        parts[task.name] = kept if answers is None or not share else (*kept, answers(kept[0]))
        self.parts = dict(sorted(parts.items()))

    def draw(self, samples: int) -> list[Drawn]:
        """At most `samples`, uniformly from all that is held, by task."""
        chosen = torch.randperm(len(self))[:samples]
        drawn, first = [], 0
        for name, part in self.parts.items():
            size = len(part[1])
            mine = chosen[(chosen >= first) & (chosen < first + size)] - first
            first += size
            if len(mine):
                drawn.append(Drawn(name, *(each[mine] for each in part)))
        return drawn

    def draw_each(self, samples: int) -> list[Drawn]:
        """At most `samples` of every task."""
        drawn = []
        for name, part in self.parts.items():
            chosen = torch.randperm(len(part[1]))[:samples]
            drawn.append(Drawn(name, *(each[chosen] for each in part)))
        return drawn

    def state(self) -> dict[str, Tensor]:
        """All samples, as "inputs.NAME", "labels.NAME" and "logits.NAME"."""
        return {
            f"{kind}.{name}": each
            for name, part in self.parts.items()
            for kind, each in zip(_KINDS, part, strict=False)
        }

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Take all samples back."""
        names = sorted(key.removeprefix("inputs.") for key in tensors if key.startswith("inputs."))
        self.parts = {
            name: tuple(tensors[f"{kind}.{name}"] for kind in _KINDS if f"{kind}.{name}" in tensors) for name in names
        }


_KINDS = ("inputs", "labels", "logits")


def recall(model: MultiHead, drawn: list[Drawn]) -> list[tuple[Tensor, Tensor]]:
    """Logits `[n, classes]` and labels `[n]` of each task's samples, after one pass of all through the backbone."""
    device = next(model.parameters()).device
    features = model.backbone(torch.cat([each.inputs for each in drawn]).to(device))
    shares = torch.split(features, [len(each.labels) for each in drawn])
    return [
        (model.head(each.task)(share), each.labels.to(device) + model.first(each.task))
        for each, share in zip(drawn, shares, strict=True)
    ]


def mean_loss(recalled: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The mean cross-entropy over all samples that `recall` gave."""
    losses = [F.cross_entropy(now, then, reduction="sum") for now, then in recalled]
    return torch.stack(losses).sum() / sum(len(then) for _, then in recalled)
