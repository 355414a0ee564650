"""Streams that are learned in one pass with a small buffer: MANGO's and ours, by MANGO and what it is compared with.

Awasthi, Roy, Apolinario, "MANGO", 2026, arXiv 2605.19080.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from forgetless.errors import ForgetlessError
from forgetless.lab.datasets.reading import clear
from forgetless.lab.experiments.parts import images, splitting
from forgetless.lab.experiments.parts.settings import Settings, setting
from forgetless.lab.networks.residual import resnet18, three_layers
from forgetless.lab.running.experiment import Experiment
from forgetless.lab.running.online import Online
from forgetless.learn import online_learners
from forgetless.learn.heads import SCENARIOS, MultiHead
from forgetless.learn.online_learners.mango import GATES
from forgetless.learn.recipe import Recipe
from forgetless.learn.streaming.budget import Budget
from forgetless.learn.task import Task

RATES = (0.01, 0.02, 0.04, 0.08)
METHODS = tuple(online_learners.LEARNERS)


@dataclass(frozen=True)
class _Stream:
    """A stream's own settings: of the paper's, as in the paper."""

    name: str  # in the catalog
    classes: int  # of a task
    size: int  # pixels per side
    shuffle: bool = False
    scenario: str = "class"
    meta_every: int = 3
    meta_lr: float = 2e-3


STREAMS = {
    "cifar100": _Stream("cifar100", 5, 32),
    "tiny-imagenet": _Stream("tiny-imagenet", 20, 64, shuffle=True, meta_every=5, meta_lr=1e-3),
    "clear10": _Stream("clear10", 10, 224, scenario="domain"),
    "mnist10k": _Stream("mnist10k", 2, 32),
    "digits": _Stream("digits", 2, 32),
    "letters": _Stream("letters", 2, 32),
    "groceries": _Stream("groceries", 8, 32),
    "actions": _Stream("actions", 8, 32),
}


@dataclass(frozen=True, kw_only=True)
class OnlineStream(Settings):
    """Learn a stream in one pass, with a buffer of a few samples: MANGO, replay and its variants.

    The network starts from scratch and learns every batch in a few updates by SGD with momentum 0.9. Each method has a
    learning rate of its own, found on a held-out part of the first two tasks, unless `--lr` gives one for all.
    """

    NAME: ClassVar[str] = "online"
    data: Path = splitting.data_setting("the stream's dataset")
    stream: str = setting("cifar100", help="The dataset that is split into tasks.", choices=tuple(STREAMS))
    scenario: str | None = setting(
        None,
        help="What is known of a sample's task when testing; in a class stream nothing.",
        choices=SCENARIOS,
        absent="class; of clear10, domain",
    )
    size: int | None = setting(None, help="Pixels per side.", least=1, absent="the stream's")
    classes: int | None = setting(None, help="Classes of a task.", least=1, absent="the stream's")
    tasks: int | None = setting(None, help="How many tasks.", least=1, absent="all")
    limit: int | None = images.limit_setting(None)
    network: str = setting("resnet18", help="The network.", choices=("resnet18", "slim-resnet18", "three-layers"))
    buffer: int = setting(1000, help="The most samples that are kept, of all tasks together.", least=1)
    batch_size: int = images.batch_setting(32)
    replay: int = setting(64, help="Samples from the buffer in an update.", least=1)
    glances: int = setting(3, help="Updates on each batch of the stream.", least=1)
    lr: float | None = setting(
        None, help="The learning rate of all methods.", positive=True, absent=f"found for each among {RATES}"
    )
    look: int | None = setting(None, help="Evaluate after every so many batches too.", least=1, absent="each task")
    gate: str = setting("signed", help="mango: the gate.", choices=GATES)
    groups: int = setting(5, help="mango, mas-gated: the most groups of layers with a λ of their own.", least=2)
    gate_only: bool = setting(False, help="mango, mas-gated: no penalty.")
    fixed: bool = setting(False, help="mango, mas-gated: no meta step, so that λ stays as it starts.")
    stream_only: bool = setting(False, help="mango, mas-gated: replayed samples serve the meta step only.")
    meta_every: int | None = setting(None, help="mango, mas-gated: batches per meta step.", least=1, absent="3 or 5")
    meta_batch: int = setting(256, help="mango, mas-gated: samples of a meta step.", least=1)
    kappa: float = setting(1.0, help="mas-gated: κ of the gate.")
    mas_strength: float = setting(1.0, help="er-mas: λ.")
    skip_bad: bool = images.skip_setting()
    cache: Path = images.cache_setting()

    def refuse_methods(self, names: Sequence[str]) -> None:
        """Refuse what is no online learner."""
        for name in names:
            online_learners.create(name)

    def build(self) -> Experiment:
        """The experiment.

        Raises:
            ForgetlessError: the root lacks the set (saying how to get it), or it is damaged or has too few classes.
        """
        own = self.methods()
        for name, settings in own.items():
            online_learners.create(name, **settings)  # refuse them before reading pictures
        about = STREAMS[self.stream]
        size, scenario = self.size or about.size, self.scenario or about.scenario
        if scenario == "class" and about.scenario == "domain":
            raise ForgetlessError(f"the tasks of {self.stream!r} have the same classes: no class-incremental stream.")
        stream = self._buckets(size) if self.stream == "clear10" else self._split(about, size)
        budget = Budget(self.lr or RATES[0], self.batch_size, self.glances, self.buffer, self.replay)
        return Experiment(
            self.NAME,
            stream,
            functools.partial(start, self.network, size, scenario),
            Recipe(budget.lr, 1, self.batch_size),
            **self.described(),
            methods=METHODS,
            settings=own,
            online=Online(budget, () if self.lr else RATES, self.look),
        )

    def _split(self, about: _Stream, size: int) -> list[Task]:
        return splitting.split(
            *(about.name, self.data, self.classes or about.classes, size),
            tasks=self.tasks,
            limit=self.limit,
            shuffle=about.shuffle,
            skip_bad=self.skip_bad,
            cache=self.cache,
        )

    def _buckets(self, size: int) -> list[Task]:
        """CLEAR's buckets in the order of time; `data` is the folder of its archives, or holds it as clear10."""
        own = (self.data / "train" / "labeled_metadata.json").is_file()
        options: dict[str, Any] = {"size": size, "limit": self.limit, "skip_bad": self.skip_bad, "cache": self.cache}
        found = clear.buckets(self.data if own else self.data / "clear10")
        chosen = found[: self.tasks or len(found)]
        return [images.task(f"bucket {name}", train, test, **options) for name, train, test in chosen]

    def methods(self) -> dict[str, dict[str, Any]]:
        """The settings of the methods that have some."""
        about = STREAMS[self.stream]
        gated: dict[str, Any] = {
            "groups": self.groups,
            "penalized": not self.gate_only,
            "meta": not (self.fixed or self.gate_only),
            "replayed": not self.stream_only,
            "meta_every": self.meta_every or about.meta_every,
            "meta_batch": self.meta_batch,
            "meta_lr": about.meta_lr,
        }
        return {
            "mango": {**gated, "gate": self.gate},
            "mas-gated": {**gated, "kappa": self.kappa},
            "er-mas": {"strength": self.mas_strength},
        }


def start(network: str, size: int, scenario: str, seed: int) -> MultiHead:
    """The network at the start; a function of the module, so that other processes can import it."""
    if network == "three-layers":
        return three_layers(seed, scenario=scenario)
    return resnet18(seed, width=64 if network == "resnet18" else 20, size=size, scenario=scenario)
