"""Split CIFAR-100: five tasks of twenty classes, as Hsu et al. have it.

Hsu, Liu, Ramasamy, Kira, "Re-evaluating Continual Learning Scenarios: A Categorization and Case for Strong Baselines",
2018, arXiv 1810.12488; what their paper leaves open is taken from their public code.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forgetless.lab.experiments.parts import comparison
from forgetless.lab.experiments.parts.splitting import split
from forgetless.lab.networks.scratch import wide_resnet
from forgetless.lab.running.experiment import Experiment, Suite
from forgetless.learn.task import Recipe

CLASSES, SIZE = 20, 32
_THEIRS, _MEMORY = 50000, 1400

#: Their task-incremental rows under our names, accuracy in percent; the standard deviation where it is known.
PUBLISHED: comparison.Published = {
    "task": {
        "finetune": (30.53, None),
        "ewc": (61.11, None),
        "si": (64.81, None),
        "mas": (64.77, 0.78),
        "joint": (84.28, None),
    }
}
#: λ as in their scripts (λ Σ Ω Δ², as ours).
COEFFICIENTS = {"l2sp": 1.0, "ewc": 100.0, "online-ewc": 3000.0, "si": 2.0, "mas": 10.0}
METHODS = ("finetune", "joint", "l2sp", "ewc", "online-ewc", "si", "mas", "lwf", "er", "mas-per-batch")


def experiment(
    data: str | Path,
    *,
    tasks: int = 5,
    limit: int = 0,
    epochs: int = 160,
    depth: int = 28,
    skip_bad: bool = False,
    cache: str = "runs/decoded",
) -> Suite:
    """Split CIFAR-100 as in Hsu et al. 2018: 5 tasks of 20 classes, WideResNet-28-2 from scratch, Adam at 1e-3.

    Their rate falls tenfold after 80 and after 120 of the 160 epochs; here it falls along a cosine. Methods have their
    published coefficients, unless `--strength auto` finds one for every task.

    Args:
        data: the root of the picture sets; or the folder of any one, for a slice where CIFAR-100 is not there.
        tasks: how many tasks.
        limit: the most training pictures of a task; 0 for all.
        epochs: passes over each task.
        depth: layers of the network: 10, 16, 22, 28, …
        skip_bad: leave out pictures that cannot be read, counted and named.
        cache: the folder for decoded pictures.

    Raises:
        ForgetlessError: no such depth; the root lacks the set (saying how to get it), or it is damaged or has too few
            classes.
    """
    wide_resnet(0, depth=depth)  # refuse it before reading pictures
    stream = split(
        *("cifar100", data, CLASSES, SIZE),
        tasks=tasks,
        limit=limit or None,
        skip_bad=skip_bad,
        cache=Path(cache),
    )
    samples = sum(len(task.train[1]) for task in stream)
    settings: dict[str, dict[str, Any]] = {name: {"strength": λ} for name, λ in COEFFICIENTS.items()}
    settings["mas-per-batch"] = {"strength": COEFFICIENTS["mas"], "code": "hsu", "batch": 128}
    settings["er"] = {"memory": max(1, round(_MEMORY * samples / _THEIRS))}
    words = {"tasks": tasks, "limit": limit, "epochs": epochs, "depth": depth}
    one = Experiment(
        "split-cifar100",
        stream,
        functools.partial(wide_resnet, depth=depth),
        Recipe(1e-3, epochs, 128, optimizer="adam", schedule="cosine", warm_start=False),
        {"network": f"wide resnet {depth}-2", "scenario": "task", "limit": limit},
        ["--data", Path(data).name, *(word for name, value in words.items() for word in (f"--{name}", str(value)))],
        methods=METHODS,
        settings=settings,
    )
    return Suite("split-cifar100", {"task": one}, table)


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The published figures with ours beside them, as Markdown."""
    return comparison.table(results, PUBLISHED)
