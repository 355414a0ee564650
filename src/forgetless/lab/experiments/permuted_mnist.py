"""Permuted MNIST: the digits with their pixels in another order for every task; how much λ matters, and Ω's batch."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Mapping
from typing import Any

import torch

from forgetless.errors import ForgetlessError
from forgetless.lab.experiments.parts import comparison, digits
from forgetless.lab.running.experiment import Experiment, Suite
from forgetless.learn.heads import MultiHead
from forgetless.learn.task import Recipe, Task
from forgetless.learn.train import derive, permutation

_STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3)
_BATCHES = (1, 16, 128, 1024)
_THEIRS = 60000


def experiment(
    *,
    data: str = "",
    tasks: int = 5,
    hidden: int = 512,
    scenario: str = "task",
    epochs: int = 10,
    lr: float = 1e-4,
    batches: bool = False,
) -> Suite:
    """Permuted MNIST over strengths from 0.001 to 1,000: how wide the range is in which MAS works.

    As many steps as `epochs` of 60,000 pictures in batches of 128, whatever the number of pictures.

    Args:
        data: a folder with the idx files of MNIST or Fashion-MNIST, or a picture set. [default: MNIST, downloaded]
        tasks: how many permutations; the first leaves the pixels where they are.
        hidden: units in each of two layers; the paper's figure has 512, Hsu et al. 1000.
        scenario: "task", "domain" or "class".
        epochs: passes over 60,000 pictures that the steps are counted by.
        lr: Adam's rate.
        batches: besides, Ω by the modulus of batches of 1, 16, 128 and 1,024 samples, as other codes have it.

    Raises:
        ForgetlessError: fewer than one task, or no such data.
    """
    if tasks < 1:
        raise ForgetlessError(f"tasks must be at least 1, not {tasks}.")
    stream = permuted(data, tasks)
    samples = len(stream[0].train[1])
    steps = epochs * math.ceil(_THEIRS / 128)
    recipe = Recipe(lr, max(1, round(steps / math.ceil(samples / 128))), 128, optimizer="adam", warm_start=False)
    options = {"tasks": tasks, "hidden": hidden, "scenario": scenario, "epochs": epochs, "lr": lr}
    arguments = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    arguments += ["--data", data.rstrip("/").rpartition("/")[2]] if data else []

    def one(strength: float, batch: int | None) -> Experiment:
        own = {"strength": strength} if batch is None else {"strength": strength, "code": "authors", "batch": batch}
        method = "mas" if batch is None else "mas-per-batch"
        return Experiment(
            "permuted-mnist",
            stream,
            functools.partial(_network, hidden, scenario),
            recipe,
            {"network": f"mlp 784-{hidden}-{hidden}", "scenario": scenario},
            arguments + ["--batches"] * batches,
            methods=(method,),
            settings={method: own},
        )

    experiments = {f"λ {strength:g}": one(strength, None) for strength in _STRENGTHS}
    if batches:
        experiments |= {
            f"λ {strength:g}, batch {batch}": one(strength, batch) for batch in _BATCHES for strength in _STRENGTHS
        }
    return Suite("permuted-mnist", experiments, table)


def permuted(data: str, tasks: int) -> list[Task]:
    """So many tasks; inputs uint8 `[N, 784]`, in an order of pixels that the task's number alone decides."""
    train, test, classes = digits.load(data or None)
    stream = []
    for number in range(tasks):
        order = permutation(784, derive(number, "pixels")) if number else torch.arange(784)
        parts = [(pictures[:, order], labels) for pictures, labels in (train, test)]
        stream.append(Task(f"permutation {number}", classes, *parts))
    return stream


def _network(hidden: int, scenario: str, seed: int) -> MultiHead:
    return digits.perceptron(hidden, seed, scenario)


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Average accuracy and forgetting over λ, as Markdown; the width of the range within a point of the best."""
    found: dict[int, dict[float, list[float]]] = {}  # samples that the modulus was taken of; 0 where it is of each
    for content in results.values():
        for run in content["runs"]:
            (figure,) = comparison.accuracies({"runs": [run]})[run["method"]].values()
            figures = found.setdefault(run.get("settings", {}).get("batch", 0), {})
            figures.setdefault(float(run["strength"]), []).append(figure)
    strengths = sorted({strength for figures in found.values() for strength in figures})
    lines = [
        "| Ω | " + " | ".join(f"λ = {strength:g}" for strength in strengths) + " | within a point of the best |",
        "|---" * (len(strengths) + 2) + "|",
    ]
    for batch, figures in sorted(found.items()):
        best = max(map(statistics.fmean, figures.values()))
        good = [
            strength
            for strength in strengths
            if strength in figures and statistics.fmean(figures[strength]) >= best - 1
        ]
        cells = [comparison.spread(figures[s], 1) if s in figures else "–" for s in strengths]
        kind = f"per batch of {batch:,}" if batch else "exact"
        lines.append(f"| {kind} | " + " | ".join(cells) + f" | {good[0]:g} … {good[-1]:g} |")
    return "\n".join(lines)
