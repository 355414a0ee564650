"""The demonstration in the authors' repository: split MNIST in five pairs, one head each, two ways to obtain Ω.

Ω is measured anew on all tasks (`mas-remeasured`), or accumulated (`mas`).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from forgetless.lab.experiments.parts import digits
from forgetless.lab.experiments.parts.settings import Settings
from forgetless.lab.running.experiment import Experiment
from forgetless.learn.classification import classification
from forgetless.learn.recipe import Recipe
from forgetless.learn.task import Task

PAIRS = ((1, 2), (3, 4), (5, 6), (7, 8), (9, 0))
HIDDEN, BATCH = 256, 150
STEPS = 20 * math.ceil(12000 / BATCH)  # of a task there: 20 epochs of about 12,000 pictures


@dataclass(frozen=True, kw_only=True)
class AuthorsDemo(Settings):
    """Split MNIST as in the authors' demonstration: 784-256-256, SGD at 0.01 with momentum 0.9, λ = 1.

    As many steps as there for every task, whatever the number of pictures. There the first task has 10 epochs in
    batches of 200 and the others 20 in batches of 150; here all are like the others. There the epoch that is best on
    the test digits is kept; here the last.
    """

    NAME: ClassVar[str] = "authors-demo"
    data: Path | None = digits.data_setting()

    def build(self) -> Experiment:
        """The experiment.

        Raises:
            ForgetlessError: no such data.
        """
        tasks = stream(self.data)
        samples = sum(len(task.train[1]) for task in tasks) / len(tasks)
        return Experiment(
            self.NAME,
            tasks,
            functools.partial(digits.perceptron, HIDDEN),
            Recipe(0.01, max(1, round(STEPS / math.ceil(samples / BATCH))), BATCH, warm_start=False),
            **self.described(network=f"mlp 784-{HIDDEN}-{HIDDEN}"),
            methods=("finetune", "mas", "mas-remeasured", "mas-per-batch"),
            settings={"mas-per-batch": {"code": "authors", "batch": 200}},
        )


def stream(data: Path | None) -> list[Task]:
    """The five tasks; inputs uint8 `[N, 784]`."""
    (train, train_labels), (test, test_labels), classes = digits.load(data)
    tasks = []
    for pair in PAIRS:
        parts = []
        for pictures, labels in ((train, train_labels), (test, test_labels)):
            mine = ((labels == pair[0]) | (labels == pair[1])).nonzero().flatten()
            parts.append((pictures[mine], (labels[mine] == pair[1]).long()))
        names = (classes[pair[0]], classes[pair[1]])
        tasks.append(classification(" and ".join(names), names, *parts))
    return tasks
