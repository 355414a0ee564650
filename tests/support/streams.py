"""Small streams that plain fine-tuning forgets, and small networks to learn them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from forgetless.learn.classification import classification
from forgetless.learn.heads import MultiHead
from forgetless.learn.method import Method
from forgetless.learn.network import Network
from forgetless.learn.samples import Batch
from forgetless.learn.task import Task

INPUTS, FEATURES, CLOUDS, CLASSES = 8, 12, 12, ("a", "b", "c")


def stream(tasks: int = 2, samples: int = 48, noise: float = 0.4) -> list[Task]:
    """Twelve Gaussian clouds that every task sorts anew into three classes, so that tasks contend for the backbone."""
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(CLOUDS, INPUTS, generator=generator)
    cloud = torch.arange(samples) % CLOUDS

    def part(classes: Tensor) -> tuple[Tensor, Tensor]:
        return centers[cloud] + noise * torch.randn(samples, INPUTS, generator=generator), classes[cloud]

    found = []
    for number in range(tasks):
        classes = torch.randperm(CLOUDS, generator=generator) % len(CLASSES)
        found.append(classification(f"task.{number}", CLASSES, part(classes), part(classes)))
    return found


def network(seed: int = 0, *, noisy: bool = False, pretrained: bool = False, scenario: str = "task") -> MultiHead:
    """A small perceptron; `noisy` with batch norm and dropout, so that modes and random numbers matter."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        middle = [nn.BatchNorm1d(16), nn.Dropout(0.2)] if noisy else []
        layers = [nn.Linear(INPUTS, 16), *middle, nn.ReLU(), nn.Linear(16, FEATURES), nn.ReLU()]
        return MultiHead(nn.Sequential(*layers), FEATURES, pretrained=pretrained, scenario=scenario)


@dataclass
class Plain(Method):
    """Fine-tuning that remembers what the loop called and gave it."""

    name: ClassVar[str] = "plain"
    calls: list[str] = field(default_factory=list, init=False)
    batches: list[Tensor] = field(default_factory=list, init=False)

    def begin(self, model: Network, task: Task, optimizer: Optimizer) -> None:
        self.calls.append(f"begin {task.name}")

    def penalty(self, batch: Batch) -> Tensor | None:
        self.batches.append(batch[0])
        return None

    def end(self, model: Network, task: Task) -> None:
        self.calls.append(f"end {task.name}")

    def load_state(self, model: Network, tensors: dict[str, Tensor], tasks: Sequence[Task] = ()) -> None:
        self.calls.append("load_state")


def same(first: nn.Module, second: nn.Module) -> bool:
    """Whether two modules hold the same names and, bit for bit, the same tensors."""
    one, two = first.state_dict(), second.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def dying(seed: int) -> MultiHead:
    """In the place of a network, where other processes find it: the end of the process that asks for one."""
    os._exit(7)
