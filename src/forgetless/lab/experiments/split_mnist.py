"""Split MNIST in three scenarios: the table of Hsu et al. 2018, and ours beside it (`forgetless.lab.published`)."""

from __future__ import annotations

import dataclasses
import functools
import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from forgetless.lab.experiments.parts import digits
from forgetless.lab.experiments.parts.settings import Settings, setting
from forgetless.lab.published.hsu_2018 import SPLIT_MNIST, SPLIT_MNIST_STRENGTHS
from forgetless.lab.report import comparison
from forgetless.lab.running.experiment import Experiment, Suite
from forgetless.learn.classification import classification
from forgetless.learn.heads import SCENARIOS, MultiHead
from forgetless.learn.optimizers import adam
from forgetless.learn.recipe import Recipe
from forgetless.learn.task import Task

HIDDEN = 400
#: Steps of a task there: 4 epochs over about 12,000 of 60,000 pictures in batches of 128.
STEPS = 4 * math.ceil(12000 / 128)
_THEIRS = 60000
_MEMORY = 4400

_LEGEND = (
    "The verdict says whether our mean is within one published standard deviation of the published one; it is no test. "
    "Forgetting is the mean of R[j,j] − R[T,j], over all tasks but the last."
)

#: Methods here → the published one that they are a form of.
FORMS = {"mas-per-batch": "mas"}
METHODS = (*SPLIT_MNIST["task"], "mas-per-batch")


@dataclass(frozen=True, kw_only=True)
class SplitMNIST(Settings):
    """Split MNIST as in Hsu et al. 2018: 5 tasks of 2 classes, MLP 400-400, Adam 1e-3, three scenarios.

    Methods have their published coefficients, unless `--strength search` finds one for every task. As many steps as
    there, whatever the number of pictures.
    """

    NAME: ClassVar[str] = "split-mnist"
    data: Path | None = digits.data_setting()
    scenario: str = setting(
        "all", help="What is known of a sample's task when testing, as in Hsu et al.", choices=(*SCENARIOS, "all")
    )

    def build(self) -> Suite:
        """The experiments, one for each scenario.

        Raises:
            ForgetlessError: no such data.
        """
        tasks = stream(self.data)
        chosen = SCENARIOS if self.scenario == "all" else (self.scenario,)
        parts = {name: _one(dataclasses.replace(self, scenario=name), tasks) for name in chosen}
        return Suite(self.NAME, parts, table)


def _one(settings: SplitMNIST, tasks: list[Task]) -> Experiment:
    scenario, samples = settings.scenario, sum(len(task.train[1]) for task in tasks)
    strengths = SPLIT_MNIST_STRENGTHS[scenario]
    epochs = max(1, round(STEPS / math.ceil(samples / len(tasks) / 128)))
    own: dict[str, dict[str, Any]] = {name: {"strength": λ} for name, λ in strengths.items()}
    own["mas-per-batch"] = {"strength": strengths["mas"], "code": "hsu", "batch": 128}
    if scenario == "class":  # their head has all its rows from the start, and all are protected
        own["l2sp"]["new_rows"] = True
    own["er"] = {"memory": round(_MEMORY * samples / _THEIRS)}
    return Experiment(
        settings.NAME,
        tasks,
        functools.partial(network, scenario),
        Recipe(1e-3, epochs, 128, optimizer=adam, warm_start=False),
        **settings.described(network="mlp 400-400"),
        methods=METHODS,
        settings=own,
    )


def stream(data: Path | None) -> list[Task]:
    """The five tasks, 0 and 1 to 8 and 9; inputs uint8 `[N, 784]`."""
    (train, train_labels), (test, test_labels), classes = digits.load(data)
    tasks = []
    for first in range(0, 10, 2):
        parts = []
        for pictures, labels in ((train, train_labels), (test, test_labels)):
            mine = (labels // 2 == first // 2).nonzero().flatten()
            parts.append((pictures[mine], labels[mine] - first))
        names = classes[first : first + 2]
        tasks.append(classification(" and ".join(names), names, *parts))
    return tasks


class Padded(nn.Module):
    """Pixels 0 … 255 `[N, 784]`, padded to 32 × 32 and standardized, as in their code: `[N, 1024]`."""

    def forward(self, pixels: Tensor) -> Tensor:
        """`(x / 255 − 0.1) / 0.2752`."""
        scaled = pixels.to(torch.get_default_dtype()).div_(255).view(-1, digits.SIZE, digits.SIZE)
        return F.pad(scaled, (2, 2, 2, 2)).sub_(0.1).div_(0.2752).flatten(1)


def network(scenario: str, seed: int) -> MultiHead:
    """A multi-layer perceptron from scratch; `seed` draws its first weights."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        layers = [nn.Linear(1024, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU()]
    return MultiHead(nn.Sequential(Padded(), *layers), HIDDEN, scenario=scenario)


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The published table with ours beside it, as Markdown; above it how much data it was, where a `config` tells."""
    found = {scenario: results[scenario] for scenario in SCENARIOS if scenario in results}
    configs = [content["config"] for content in found.values() if "config" in content]
    parts = [textwrap.fill(_data(configs[0]), 100)] if configs else []
    return "\n\n".join([*parts, comparison(found, SPLIT_MNIST, forms=FORMS), textwrap.fill(_LEGEND, 100)])


def _data(config: Mapping[str, Any]) -> str:
    """How many pictures a run had, and how it was trained on them."""
    train, test = (sum(task[part] for task in config["tasks"]) for part in ("train", "test"))
    epochs = config["recipe"]["epochs"]
    steps = epochs * math.ceil(train / len(config["tasks"]) / config["recipe"]["batch_size"])
    return f"{train:,} pictures to learn from and {test:,} to test on. {amount(epochs, steps)}"


def amount(epochs: int, steps: int) -> str:
    """How much training it was beside that of the published table, in a sentence or three."""
    if epochs == 4:
        return f"As many pictures and as many steps ({steps} a task) as in the published table."
    return (
        f"Steps are matched, not epochs: {epochs} epochs are as many as 4 in the published table ({steps} a "
        "task). Fewer pictures are seen more often: effects that need many different pictures cannot be checked."
    )
