"""Split CIFAR-100: five tasks of twenty classes, as in Hsu et al. 2018 (`forgetless.lab.published`)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from forgetless.lab.experiments.parts import images, splitting
from forgetless.lab.experiments.parts.settings import Settings, setting
from forgetless.lab.networks.scratch import wide_resnet
from forgetless.lab.published.hsu_2018 import SPLIT_CIFAR100, SPLIT_CIFAR100_STRENGTHS
from forgetless.lab.report import comparison
from forgetless.lab.running.experiment import Experiment, Suite
from forgetless.learn.optimizers import adam
from forgetless.learn.recipe import Recipe

CLASSES, SIZE = 20, 32
_THEIRS, _MEMORY = 50000, 1400

METHODS = ("finetune", "joint", "l2sp", "ewc", "online-ewc", "si", "mas", "lwf", "er", "mas-per-batch")


@dataclass(frozen=True, kw_only=True)
class SplitCIFAR100(Settings):
    """Split CIFAR-100 as in Hsu et al. 2018: 5 tasks of 20 classes, WideResNet-28-2 from scratch, Adam at 1e-3.

    Their rate falls tenfold after 80 and after 120 of the 160 epochs; here it falls along a cosine. Methods have their
    published coefficients, unless `--strength search` finds one for every task.
    """

    NAME: ClassVar[str] = "split-cifar100"
    data: Path = splitting.data_setting("CIFAR-100")
    tasks: int = setting(5, help="How many tasks.", least=1)
    limit: int | None = images.limit_setting(None)
    epochs: int = setting(160, help="Passes over each task.", least=1)
    depth: int = setting(28, help="Layers of the network: 10, 16, 22, 28 and so on.", least=10)
    skip_bad: bool = images.skip_setting()
    cache: Path = images.cache_setting()

    def build(self) -> Suite:
        """The experiment, as a suite of one.

        Raises:
            ForgetlessError: no such depth; the root lacks the set (saying how to get it), or it is damaged or has too
                few classes.
        """
        wide_resnet(0, depth=self.depth)  # refuse it before reading pictures
        stream = splitting.split(
            *("cifar100", self.data, CLASSES, SIZE),
            tasks=self.tasks,
            limit=self.limit,
            skip_bad=self.skip_bad,
            cache=self.cache,
        )
        samples = sum(len(task.train[1]) for task in stream)
        strengths = SPLIT_CIFAR100_STRENGTHS
        settings: dict[str, dict[str, Any]] = {name: {"strength": λ} for name, λ in strengths.items()}
        settings["mas-per-batch"] = {"strength": strengths["mas"], "code": "hsu", "batch": 128}
        settings["er"] = {"memory": max(1, round(_MEMORY * samples / _THEIRS))}
        one = Experiment(
            self.NAME,
            stream,
            functools.partial(wide_resnet, depth=self.depth),
            Recipe(1e-3, self.epochs, 128, optimizer=adam, schedule="cosine", warm_start=False),
            **self.described(network=f"wide resnet {self.depth}-2", scenario="task"),
            methods=METHODS,
            settings=settings,
        )
        return Suite(self.NAME, {"task": one}, table)


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The published figures with ours beside them, as Markdown."""
    return comparison(results, SPLIT_CIFAR100)
