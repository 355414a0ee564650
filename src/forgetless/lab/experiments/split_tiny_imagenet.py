"""Split Tiny ImageNet: ten tasks of twenty classes and a small VGG, the recipe of De Lange et al. as Avalanche has it.

De Lange et al., "A continual learning survey: Defying forgetting in classification tasks", TPAMI 2021, arXiv
1909.08383; rates and λ from Avalanche's reproduction, github.com/ContinualAI/continual-learning-baselines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from forgetless.lab.experiments.parts import images, splitting
from forgetless.lab.experiments.parts.settings import Settings, setting
from forgetless.lab.networks.scratch import small_vgg
from forgetless.lab.published.avalanche import SPLIT_TINY_IMAGENET, STRENGTH
from forgetless.lab.report import comparison
from forgetless.lab.running.experiment import Experiment, Suite
from forgetless.learn.recipe import Recipe

CLASSES, SIZE, BATCH = 20, 64, 200
METHODS = ("finetune", "joint", "l2sp", "ewc", "si", "mas", "lwf", "mas-per-batch")


@dataclass(frozen=True, kw_only=True)
class SplitTinyImageNet(Settings):
    """Split Tiny ImageNet: 10 tasks of 20 classes, a small VGG from scratch, SGD at 0.005 with momentum 0.9.

    `mas-per-batch` is Avalanche's MAS with its λ = 2; the others have their own λ, unless `--strength search` finds one
    for every task. The labels of the official test part are secret, so its validation part is the test part here.
    """

    NAME: ClassVar[str] = "split-tiny-imagenet"
    data: Path = splitting.data_setting("Tiny ImageNet")
    tasks: int = setting(10, help="How many tasks.", least=1)
    limit: int | None = images.limit_setting(None)
    epochs: int = setting(70, help="Passes over each task.", least=1)
    skip_bad: bool = images.skip_setting()
    cache: Path = images.cache_setting()

    def build(self) -> Suite:
        """The experiment, as a suite of one.

        Raises:
            ForgetlessError: the root lacks the set (saying how to get it), or it is damaged or has too few classes.
        """
        stream = splitting.split(
            *("tiny-imagenet", self.data, CLASSES, SIZE),
            tasks=self.tasks,
            limit=self.limit,
            shuffle=True,
            skip_bad=self.skip_bad,
            cache=self.cache,
        )
        one = Experiment(
            self.NAME,
            stream,
            small_vgg,
            Recipe(0.005, self.epochs, BATCH, warm_start=False),
            **self.described(network="small vgg", scenario="task"),
            methods=METHODS,
            settings={"mas-per-batch": {"strength": STRENGTH, "code": "avalanche", "batch": BATCH}},
        )
        return Suite(self.NAME, {"task": one}, table)


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The published figure with ours beside it, as Markdown."""
    return comparison(results, SPLIT_TINY_IMAGENET)
