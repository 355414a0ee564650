"""Samples of earlier tasks, for the methods that may keep some."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from forgetless.heads import MultiHead
from forgetless.task import Task


class Drawn(NamedTuple):
    """Samples of one earlier task."""

    task: str
    inputs: Tensor
    labels: Tensor


class Memory:
    """Random training samples of the tasks so far, in equal shares of a budget, or all of them.

    Attributes:
        budget: the most samples it holds; None for no limit.
        parts: task name → its inputs and labels, in random order; sorted by name, so that draws can be repeated.
    """

    def __init__(self, budget: int | None) -> None:
        self.budget = budget
        self.parts: dict[str, tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return sum(len(labels) for _, labels in self.parts.values())

    def add(self, task: Task) -> None:
        """Take in samples of a task that was learned; the others make room."""
        inputs, labels = task.train
        order = torch.randperm(len(labels))
        parts = {**self.parts, task.name: (inputs[order], labels[order])}
        if self.budget is not None:
            share = self.budget // len(parts)
            # Clones: a slice would keep all of the task in memory.
            parts = {name: (x[:share].clone(), y[:share].clone()) for name, (x, y) in parts.items()}
        self.parts = dict(sorted(parts.items()))

    def draw(self, samples: int) -> list[Drawn]:
        """At most `samples`, uniformly from all that is held, by task."""
        chosen = torch.randperm(len(self))[:samples]
        drawn, first = [], 0
        for name, (inputs, labels) in self.parts.items():
            mine = chosen[(chosen >= first) & (chosen < first + len(labels))] - first
            first += len(labels)
            if len(mine):
                drawn.append(Drawn(name, inputs[mine], labels[mine]))
        return drawn

    def draw_each(self, samples: int) -> list[Drawn]:
        """At most `samples` of every task."""
        drawn = []
        for name, (inputs, labels) in self.parts.items():
            chosen = torch.randperm(len(labels))[:samples]
            drawn.append(Drawn(name, inputs[chosen], labels[chosen]))
        return drawn

    def state(self) -> dict[str, Tensor]:
        """All samples, as "inputs.NAME" and "labels.NAME"."""
        kinds = ("inputs", "labels")
        return {f"{kind}.{name}": part[i] for name, part in self.parts.items() for i, kind in enumerate(kinds)}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Take all samples back."""
        names = sorted(key.removeprefix("inputs.") for key in tensors if key.startswith("inputs."))
        self.parts = {name: (tensors[f"inputs.{name}"], tensors[f"labels.{name}"]) for name in names}


def recall(model: MultiHead, drawn: list[Drawn]) -> list[tuple[Tensor, Tensor]]:
    """Logits `[n, classes]` and labels `[n]` of each task's samples, after one pass of all through the trunk."""
    device = next(model.parameters()).device
    features = model.trunk(torch.cat([each.inputs for each in drawn]).to(device))
    shares = torch.split(features, [len(each.labels) for each in drawn])
    return [(model.head(each.task)(share), each.labels.to(device)) for each, share in zip(drawn, shares, strict=True)]
