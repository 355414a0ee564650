"""Split MNIST in three scenarios: the table of Hsu et al., and ours beside it.

Hsu, Liu, Ramasamy, Kira, "Re-evaluating Continual Learning Scenarios: A Categorization and Case for Strong Baselines",
2018, arXiv 1810.12488; what their paper leaves open is taken from their public code.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from forgetless.errors import ForgetlessError
from forgetless.lab.experiments.parts import comparison, digits
from forgetless.lab.running.experiment import Experiment, Suite
from forgetless.learn.heads import SCENARIOS, MultiHead
from forgetless.learn.task import Recipe, Task

HIDDEN = 400
#: Steps of a task there: 4 epochs over about 12,000 of 60,000 pictures in batches of 128.
STEPS = 4 * math.ceil(12000 / 128)
_THEIRS = 60000
_MEMORY = 4400

#: Their rows under our names, accuracy in percent: scenario → method → mean and standard deviation of 10 runs.
PUBLISHED: dict[str, dict[str, tuple[float, float]]] = {
    "task": {
        "finetune": (93.46, 2.01),
        "l2sp": (98.18, 0.96),
        "ewc": (97.70, 0.81),
        "online-ewc": (98.04, 1.10),
        "si": (98.56, 0.49),
        "mas": (99.22, 0.21),
        "lwf": (99.60, 0.03),
        "er": (99.40, 0.08),
        "joint": (99.52, 0.16),
    },
    "domain": {
        "finetune": (55.16, 1.38),
        "l2sp": (66.00, 3.73),
        "ewc": (58.85, 2.59),
        "online-ewc": (57.33, 1.44),
        "si": (64.76, 3.09),
        "mas": (68.57, 6.85),
        "lwf": (71.02, 1.26),
        "er": (95.16, 0.49),
        "joint": (98.59, 0.15),
    },
    "class": {
        "finetune": (19.71, 0.08),
        "l2sp": (22.52, 1.08),
        "ewc": (19.80, 0.05),
        "online-ewc": (19.77, 0.04),
        "si": (19.67, 0.09),
        "mas": (19.52, 0.29),
        "lwf": (24.17, 0.33),
        "er": (90.78, 0.85),
        "joint": (97.53, 0.30),
    },
}
#: λ as in their scripts (λ Σ Ω Δ², as ours), by scenario.
COEFFICIENTS: dict[str, dict[str, float]] = {
    "task": {"l2sp": 0.01, "ewc": 100, "online-ewc": 400, "si": 300, "mas": 1},
    "domain": {"l2sp": 0.5, "ewc": 100, "online-ewc": 700, "si": 3000, "mas": 10000},
    "class": {"l2sp": 100, "ewc": 600, "online-ewc": 100, "si": 600, "mas": 1},
}
METHODS = (*PUBLISHED["task"], "mas-per-batch")


def experiment(*, data: str = "", scenario: str = "all") -> Suite:
    """Split MNIST as in Hsu et al. 2018: 5 tasks of 2 classes, MLP 400-400, Adam 1e-3, three scenarios.

    Methods have their published coefficients, unless `--strength auto` finds one for every task. As many steps as
    there, whatever the number of pictures.

    Args:
        data: a folder with the idx files of MNIST or Fashion-MNIST, or a picture set. [default: MNIST, downloaded]
        scenario: "task", "domain", "class" or "all".

    Raises:
        ForgetlessError: no such scenario, or no such data.
    """
    if scenario not in (*SCENARIOS, "all"):
        raise ForgetlessError(f"scenario must be 'task', 'domain', 'class' or 'all', not {scenario!r}.")
    tasks = stream(data)
    chosen = SCENARIOS if scenario == "all" else (scenario,)
    return Suite("split-mnist", {name: _one(name, tasks, data) for name in chosen}, table)


def _one(scenario: str, tasks: list[Task], data: str) -> Experiment:
    samples = sum(len(task.train[1]) for task in tasks)
    epochs = max(1, round(STEPS / math.ceil(samples / len(tasks) / 128)))
    settings: dict[str, dict[str, Any]] = {name: {"strength": λ} for name, λ in COEFFICIENTS[scenario].items()}
    settings["mas-per-batch"] = {"strength": COEFFICIENTS[scenario]["mas"], "code": "hsu", "batch": 128}
    if scenario == "class":  # their head has all its rows from the start, and all are held
        settings["l2sp"]["new_rows"] = True
    settings["er"] = {"memory": round(_MEMORY * samples / _THEIRS)}
    return Experiment(
        "split-mnist",
        tasks,
        functools.partial(network, scenario),
        Recipe(1e-3, epochs, 128, optimizer="adam", warm_start=False),
        {"network": "mlp 400-400", "scenario": scenario},
        ["--scenario", scenario, *(["--data", data.rstrip("/").rpartition("/")[2]] if data else [])],
        methods=METHODS,
        settings=settings,
    )


def stream(data: str) -> list[Task]:
    """The five tasks, 0 and 1 to 8 and 9; inputs uint8 `[N, 784]`."""
    (train, train_labels), (test, test_labels), classes = digits.load(data or None)
    tasks = []
    for first in range(0, 10, 2):
        parts = []
        for pictures, labels in ((train, train_labels), (test, test_labels)):
            mine = (labels // 2 == first // 2).nonzero().flatten()
            parts.append((pictures[mine], labels[mine] - first))
        names = classes[first : first + 2]
        tasks.append(Task(" and ".join(names), names, *parts))
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
    """The published table with ours beside it, as Markdown."""
    return comparison.table(results, PUBLISHED)
