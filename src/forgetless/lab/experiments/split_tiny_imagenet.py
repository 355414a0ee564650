"""Split Tiny ImageNet: ten tasks of twenty classes and a small VGG, the recipe of De Lange et al. as Avalanche has it.

De Lange et al., "A continual learning survey: Defying forgetting in classification tasks", TPAMI 2021, arXiv
1909.08383; rates and λ from Avalanche's reproduction, github.com/ContinualAI/continual-learning-baselines.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forgetless.lab.experiments.parts import comparison
from forgetless.lab.experiments.parts.splitting import split
from forgetless.lab.networks.scratch import small_vgg
from forgetless.lab.running.experiment import Experiment, Suite
from forgetless.learn.task import Recipe

CLASSES, SIZE, BATCH = 20, 64, 200
#: What Avalanche reproduces, average accuracy in percent.
PUBLISHED: comparison.Published = {"task": {"mas-per-batch": (40.0, None)}}
METHODS = ("finetune", "joint", "l2sp", "ewc", "si", "mas", "lwf", "mas-per-batch")


def experiment(
    data: str | Path,
    *,
    tasks: int = 10,
    limit: int = 0,
    epochs: int = 70,
    skip_bad: bool = False,
    cache: str = "runs/decoded",
) -> Suite:
    """Split Tiny ImageNet: 10 tasks of 20 classes, a small VGG from scratch, SGD at 0.005 with momentum 0.9.

    `mas-per-batch` is Avalanche's MAS with its λ = 2; the others have their own λ, unless `--strength auto` finds one
    for every task. The labels of the official test part are secret, so its validation part is the test part here.

    Args:
        data: the root of the picture sets; or the folder of any one, for a slice where Tiny ImageNet is not there.
        tasks: how many tasks.
        limit: the most training pictures of a task; 0 for all.
        epochs: passes over each task.
        skip_bad: leave out pictures that cannot be read, counted and named.
        cache: the folder for decoded pictures.

    Raises:
        ForgetlessError: the root lacks the set (saying how to get it), or it is damaged or has too few classes.
    """
    stream = split(
        *("tiny-imagenet", data, CLASSES, SIZE),
        tasks=tasks,
        limit=limit or None,
        shuffle=True,
        skip_bad=skip_bad,
        cache=Path(cache),
    )
    words = {"tasks": tasks, "limit": limit, "epochs": epochs}
    one = Experiment(
        "split-tiny-imagenet",
        stream,
        small_vgg,
        Recipe(0.005, epochs, BATCH, warm_start=False),
        {"network": "small vgg", "scenario": "task", "limit": limit},
        ["--data", Path(data).name, *(word for name, value in words.items() for word in (f"--{name}", str(value)))],
        methods=METHODS,
        settings={"mas-per-batch": {"strength": 2.0, "code": "avalanche", "batch": BATCH}},
    )
    return Suite("split-tiny-imagenet", {"task": one}, table)


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The published figure with ours beside it, as Markdown."""
    return comparison.table(results, PUBLISHED)
