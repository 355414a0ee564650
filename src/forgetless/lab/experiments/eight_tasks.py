"""The paper's eight object recognition tasks as far as small image datasets have them, for a machine without a GPU."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from forgetless.lab.experiments.parts import images
from forgetless.lab.experiments.parts import omega as measuring
from forgetless.lab.experiments.parts import pairs as two_tasks
from forgetless.lab.experiments.parts.settings import Settings, setting
from forgetless.lab.networks.pretrained import pretrained
from forgetless.lab.running.experiment import Experiment, Suite
from forgetless.lab.running.search import Search
from forgetless.lab.running.tuning import Tuning
from forgetless.learn.heads import MultiHead
from forgetless.learn.recipe import Recipe

#: In the paper's order; groceries in Aircraft's place, digits of Chars74K in SVHN's.
TASKS = ("flowers", "scenes", "birds", "cars", "groceries", "actions", "letters", "digits")
#: All methods of the paper's figure, joint training and a frozen backbone.
METHODS = ("finetune", "joint", "frozen", "lwf", "ebll", "imm-mean", "imm-mode", "ewc", "si", "local-mas", "mas")
#: A frozen backbone reaches about 94 % of fine-tuning's accuracy here: a drop of the survey's 20 % accepts every λ.
DROP, FACTOR, TRIALS = 0.05, 0.25, 4


@dataclass(frozen=True, kw_only=True)
class EightTasks(Settings):
    """A network pretrained on ImageNet learns flowers, scenes, birds, cars, groceries, actions, letters and digits.

    Strengths are found by stability decay on the second task with seed 0, in at most four trials, for every method
    alike. Pictures are decoded once; batch-norm statistics are frozen.
    """

    NAME: ClassVar[str] = "eight-tasks"
    data: Path = setting(help="The folder that holds an image dataset of each task's name.", place=True)
    pairs: bool = two_tasks.pairs_setting()
    omega: str = measuring.omega_setting()
    network: str = images.network_setting()
    size: int = images.size_setting()
    limit: int = images.limit_setting(800)
    epochs: int = setting(10, help="Passes over each task.", least=1)
    lr: float = images.rate_setting()
    batch_size: int = images.batch_setting(32)
    drop: float = setting(DROP, help="The share of fine-tuning's accuracy that a strength may cost on the second task.")
    rise: bool = setting(False, help="Look above a method's first strength too, where that one is accepted.")
    skip_bad: bool = images.skip_setting()
    cache: Path = images.cache_setting()

    def build(self) -> Experiment | Suite:
        """The experiment.

        Raises:
            ForgetlessError: the folder lacks a set, a set cannot be read, or the network's weights are not installed.
        """
        start = functools.partial(_start, self.network)
        start(0)  # refuse it before reading pictures
        search = Search(drop=self.drop, factor=FACTOR, most=TRIALS, rise=self.rise)
        folders = images.sets(self.data, two_tasks.TASKS if self.pairs else TASKS)
        load = functools.partial(
            images.load, size=self.size, limit=self.limit, skip_bad=self.skip_bad, cache=self.cache
        )
        tasks = {folder.name: load(folder) for folder in folders}
        one = Experiment(
            self.NAME,
            list(tasks.values()),
            start,
            Recipe(self.lr, self.epochs, self.batch_size, clip=5.0, schedule="cosine", freeze_batchnorm=True),
            **self.described(),
            tuning=Tuning(search),
            methods=METHODS if self.omega == "train" else ("mas", "local-mas"),
            create=functools.partial(measuring.create, self.omega),
        )
        return two_tasks.suite(one, tasks) if self.pairs else one


def _start(network: str, seed: int) -> MultiHead:
    return pretrained(network)
