"""Permuted MNIST: the digits with their pixels in another order for every task; how much λ matters, and Ω's batch."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from forgetless.lab.experiments.parts import digits
from forgetless.lab.experiments.parts.settings import Settings, setting
from forgetless.lab.report.comparison import spread
from forgetless.lab.results.paired import accuracies
from forgetless.lab.running.experiment import Experiment, Suite
from forgetless.learn.classification import classification
from forgetless.learn.heads import SCENARIOS, MultiHead
from forgetless.learn.optimizers import adam
from forgetless.learn.recipe import Recipe
from forgetless.learn.seeding import derive, permutation
from forgetless.learn.task import Task

_STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3)
_BATCHES = (1, 16, 128, 1024)
_THEIRS = 60000


@dataclass(frozen=True, kw_only=True)
class PermutedMNIST(Settings):
    """Permuted MNIST over strengths from 0.001 to 1,000: how wide the range is in which MAS works.

    As many steps as `epochs` of 60,000 pictures in batches of 128, whatever the number of pictures.
    """

    NAME: ClassVar[str] = "permuted-mnist"
    data: Path | None = digits.data_setting()
    tasks: int = setting(5, help="How many permutations; the first leaves the pixels where they are.", least=1)
    hidden: int = setting(
        512, help="Units in each of two layers; the paper's figure has 512, Hsu et al. 1000.", least=1
    )
    scenario: str = setting("task", help="What is known of a sample's task when testing.", choices=SCENARIOS)
    epochs: int = setting(10, help="Passes over 60,000 pictures that the steps are counted by.", least=1)
    lr: float = setting(1e-4, help="Adam's rate.", positive=True)
    batches: bool = setting(
        False, help="Also, Ω by the modulus of batches of 1, 16, 128 and 1,024 samples, as other codes have it."
    )

    def build(self) -> Suite:
        """The experiments, one for each strength and batch.

        Raises:
            ForgetlessError: no such data.
        """
        stream = permuted(self.data, self.tasks)
        epochs = self.epochs * math.ceil(_THEIRS / 128) / math.ceil(len(stream[0].train[1]) / 128)
        recipe = Recipe(self.lr, max(1, round(epochs)), 128, optimizer=adam, warm_start=False)
        experiments = {}
        for batch in (None, *_BATCHES) if self.batches else (None,):
            for strength in _STRENGTHS:
                method = "mas" if batch is None else "mas-per-batch"
                own = {} if batch is None else {"code": "authors", "batch": batch}
                folder = f"lambda-{strength:g}" + ("" if batch is None else f"-batch-{batch}")
                experiments[folder] = Experiment(
                    self.NAME,
                    stream,
                    functools.partial(_network, self.hidden, self.scenario),
                    recipe,
                    **self.described(network=f"mlp 784-{self.hidden}-{self.hidden}"),
                    methods=(method,),
                    settings={method: {"strength": strength, **own}},
                )
        return Suite(self.NAME, experiments, table)


def permuted(data: Path | None, tasks: int) -> list[Task]:
    """So many tasks; inputs uint8 `[N, 784]`, in an order of pixels that the task's number alone decides."""
    train, test, classes = digits.load(data)
    stream = []
    for number in range(tasks):
        order = permutation(784, derive(number, "pixels")) if number else torch.arange(784)
        parts = [(pictures[:, order], labels) for pictures, labels in (train, test)]
        stream.append(classification(f"permutation {number}", classes, *parts))
    return stream


def _network(hidden: int, scenario: str, seed: int) -> MultiHead:
    return digits.perceptron(hidden, seed, scenario)


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Average accuracy and forgetting over λ, as Markdown; the width of the range within a point of the best."""
    found: dict[int, dict[float, list[float]]] = {}  # samples that the modulus was taken of; 0 where it is of each
    for content in results.values():
        for run in content["runs"]:
            (figure,) = accuracies({"runs": [run]})[run["method"]].values()
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
        cells = [spread(figures[s], 1) if s in figures else "–" for s in strengths]
        kind = f"per batch of {batch:,}" if batch else "exact"
        lines.append(f"| {kind} | " + " | ".join(cells) + f" | {good[0]:g} … {good[-1]:g} |")
    return "\n".join(lines)
