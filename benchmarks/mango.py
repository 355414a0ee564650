"""What MANGO's update costs, as a ratio to experience replay's on the same batches.

    OMP_NUM_THREADS=1 python benchmarks/mango.py --clock cpu   writes benchmarks/results/mango.json
    python benchmarks/mango.py --table                         rewrite the table in docs/performance.md

Three updates on each batch of 32 with 64 replayed samples, pictures of 32 pixels; a meta step on 256 samples follows
every third or every fifth batch. A round is fifteen batches, which both learners take by turns, so that the meta steps
are amortized; what is reported is the median over rounds of the ratio of the whole rounds.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from forgetless.lab.networks.residual import resnet18, three_layers
from forgetless.learn.classification import classification
from forgetless.learn.families.memory import Remembered
from forgetless.learn.heads import MultiHead
from forgetless.learn.online_learners import create
from forgetless.learn.streaming.budget import Budget
from forgetless.learn.task import Task
from importance import Clock, environment
from rounds import footer, run

BATCHES, CLASSES, TASKS = 15, 10, 2
BUDGET = Budget(0.01)
NETWORKS: dict[str, tuple[str, Callable[[], MultiHead]]] = {
    "slim-resnet18": ("ResNet-18, a third as wide", functools.partial(resnet18, 0, width=20)),
    "three-layers": ("three convolutions", functools.partial(three_layers, 0)),
}
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "gate": ("gate only", {"penalized": False, "meta": False}),
    "fixed": ("gate and penalty, λ fixed", {"meta": False}),
    "every 5": ("a meta step every 5 batches", {"meta_every": 5}),
    "every 3": ("a meta step every 3 batches", {"meta_every": 3}),
}


def samples(count: int) -> tuple[Tensor, Tensor]:
    """Pictures of noise with labels."""
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8), torch.arange(count) % CLASSES


def learner(network: str, name: str, settings: dict[str, Any], tasks: list[Task]) -> Callable[[Remembered, int], None]:
    """A function that learns a batch, of a learner past its first task with a full buffer."""
    model = NETWORKS[network][1]()
    for task in tasks:
        task.objective.prepare(model, task.name)
    model.train()
    made = create(name, **settings)
    made.begin(model, tasks, torch.optim.SGD(model.parameters(), BUDGET.lr, BUDGET.momentum), BUDGET)
    made.keep(Remembered(tasks[0].name, tasks[0].objective, samples(BUDGET.buffer)))
    made.border(tasks[0], 0)

    def learn(part: Remembered, batch: int) -> None:
        for glance in range(BUDGET.glances):
            made.glance(part, batch, glance + 1 == BUDGET.glances)
        made.keep(part)

    return learn


def measure(name: str, clock: Clock, rounds: int) -> dict[str, Any]:
    """All rows of one network."""
    torch.manual_seed(0)
    labels = [tuple(f"{task} {label}" for label in range(CLASSES)) for task in range(TASKS)]
    tasks = [classification(str(n), names, samples(32), samples(32)) for n, names in enumerate(labels)]
    learners = {"er": learner(name, "er", {}, tasks)}
    learners |= {row: learner(name, "mango", settings, tasks) for row, (_, settings) in ROWS.items()}
    ratios: dict[str, list[float]] = {row: [] for row in ROWS}
    plains: list[float] = []
    for number in range(rounds + 1):
        seconds = dict.fromkeys(learners, 0.0)
        for batch in range(BATCHES):
            part = Remembered(tasks[1].name, tasks[1].objective, samples(BUDGET.batch_size))
            for row, learn in learners.items():
                seconds[row] += clock.time(lambda part=part, batch=batch, learn=learn: learn(part, batch))  # type: ignore[misc]
        if number:  # the first round is a warm-up
            plains.append(seconds["er"])
            for row in ROWS:
                ratios[row].append(seconds[row] / seconds["er"])
    rows = {row: {"ratio": statistics.median(each), "ratios": each} for row, each in ratios.items()}
    return {"plain_seconds": plains, "rows": rows, "environment": environment(clock.kind)}


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    names = [name for name in NETWORKS if name in results]
    lines = ["| ÷ experience replay | " + " | ".join(NETWORKS[name][0] for name in names) + " |"]
    lines.append("|---" * (len(names) + 1) + "|")
    for row, (title, _) in ROWS.items():
        cells = [f"{results[name]['rows'][row]['ratio']:.2f}" for name in names]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, *footer(results, names)])


if __name__ == "__main__":
    run(__doc__, NETWORKS, measure, table, "mango", rounds=3)
