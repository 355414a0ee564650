"""A small stream for online learners, and what the tests of them share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from forgetless.learn.classification import classification
from forgetless.learn.heads import MultiHead
from forgetless.learn.online_learners import create
from forgetless.learn.streaming.budget import Budget
from forgetless.learn.streaming.loop import Streamed, learn_online
from forgetless.learn.task import Task
from streams import INPUTS, network

BUDGET = Budget(0.05, batch_size=8, glances=2, buffer=20, replay=8)


def classes(tasks: int = 3, each: int = 2, samples: int = 30) -> list[Task]:
    """A class-incremental stream: every class a Gaussian cloud of its own."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for number in range(tasks):
        centers = 2 * torch.randn(each, INPUTS, generator=generator)
        labels = torch.arange(samples) % each

        def part(centers: Tensor = centers, labels: Tensor = labels) -> tuple[Tensor, Tensor]:
            return centers[labels] + torch.randn(samples, INPUTS, generator=generator), labels

        names = tuple(f"{number}{letter}" for letter in "abcdef"[:each])
        found.append(classification(f"task.{number}", names, part(), part()))
    return found


def learned(
    name: str, tasks: list[Task], *, scenario: str = "class", budget: Budget = BUDGET, **options: Any
) -> tuple[MultiHead, Streamed]:
    """The network after the stream, and the outcome; `settings` are the learner's."""
    model = network(noisy=options.pop("noisy", True), scenario=scenario)
    learner = create(name, **options.pop("settings", {}))
    return model, learn_online(model, tasks, learner, budget, seed=options.pop("seed", 3), **options)
