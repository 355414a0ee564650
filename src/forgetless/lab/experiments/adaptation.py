"""Adaptation: what is kept is what the network is used for, shown by unlabeled pictures of a part of its first task."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from forgetless.errors import ForgetlessError
from forgetless.lab.datasets.reading.fact import parsed
from forgetless.lab.experiments.parts import facts, images, patterns, use
from forgetless.lab.experiments.parts.settings import Settings, setting
from forgetless.lab.facts.words import glove
from forgetless.lab.networks.pretrained import pretrained
from forgetless.lab.report.adaptation import adaptation
from forgetless.lab.running.experiment import Experiment, Suite
from forgetless.lab.running.search import Search
from forgetless.lab.running.tuning import Tuning
from forgetless.learn.classification import classes_of, classification
from forgetless.learn.facts import Facts
from forgetless.learn.network import Network
from forgetless.learn.optimizers import adam
from forgetless.learn.recipe import Recipe
from forgetless.learn.seeding import derive, permutation
from forgetless.learn.task import Task

METHODS = ("finetune", "joint", "si", "mas")
#: Strengths that are not searched for, and Adam's rate. They were chosen on the other subset, so that fine-tuning
#: forgets there and MAS learns; those of facts on other designers' drawings, too.
FACTS: tuple[dict[str, float], float] = ({"mas": 10.0, "si": 800.0}, 3e-4)
IMAGES: tuple[dict[str, float], float] = ({"mas": 0.001}, 4e-4)
#: Picture sets: two that make the first task together, of which the network is used for the second; the later tasks.
PICTURES = {
    "sport": (("scenes", "letters"), ("actions", "mnist10k")),
    "daily": (("groceries", "digits"), ("textures", "birds")),
}


@dataclass(frozen=True, kw_only=True)
class Adaptation(Settings):
    """Memory Aware Synapses 2018, section 5.3: Ω measured on the part of a task that the network is used for.

    A first task, a subset of which is used later on, then two more tasks. MAS measures Ω on the subset, without labels,
    on everything, and on a wrong set; beside it are fine-tuning, SI and joint training. DATA holds facts, whose subset
    is sport or listed in a file, or image datasets: scenes and letters as one task, of which letters are used, then
    actions and mnist10k.
    """

    NAME: ClassVar[str] = "adaptation"
    data: Path = setting(help="A folder of facts, or one that holds image datasets.", place=True)
    subset: str = setting("sport", help="Which subset; settings were chosen on daily.", choices=tuple(PICTURES))
    used: Path | None = setting(
        None,
        help="A text file that lists the subset: a fact SUBJECT,PREDICATE,OBJECT a line, * for any part.",
        absent="the subset of that name",
        place=True,
    )
    network: str = images.network_setting()
    size: int = images.size_setting()
    limit: int = images.limit_setting(12)
    epochs: int = setting(15, help="Passes over each task.", least=1)
    lr: float | None = setting(
        None,
        help="Adam's rate at the start of each task; it falls to zero along a cosine.",
        positive=True,
        absent="3e-4 for facts, 4e-4 for image datasets",
    )
    batch_size: int = images.batch_setting(32)
    skip_bad: bool = images.skip_setting()
    cache: Path = images.cache_setting()

    def build(self) -> Suite:
        """The experiments: Ω on everything, with all methods; MAS with Ω on the subset, and on the rest.

        Raises:
            ForgetlessError: the folder holds neither, a picture, the network or the word vectors are missing, or the
                subset is none or too many of the facts, or listed in a file that is wrong or for image datasets.
        """
        from_facts = facts.kind(self.data) is not None
        if self.used is not None and not from_facts:
            raise ForgetlessError(f"--used lists facts, and {self.data} holds none; of image datasets use --subset.")
        start, tasks, subset = self._facts() if from_facts else self._pictures()
        first = tasks[0]
        strengths, rate = FACTS if from_facts else IMAGES
        inside = torch.isin(first.train[1], subset)
        if bool(inside.all()) or not bool(inside.any()):
            raise ForgetlessError(f"the subset {self.subset!r} is all or nothing of the first task, {first.name!r}.")
        used = {"subset": first.train[0][inside], "rest": first.train[0][~inside]}
        one = Experiment(
            self.NAME,
            tasks,
            start,
            Recipe(
                self.lr or rate, self.epochs, self.batch_size, adam, clip=5.0, schedule="cosine", freeze_batchnorm=True
            ),
            **self.described(**({"used": _names(first, subset)} if from_facts else {})),
            tuning=Tuning(Search(), fixed=strengths),
            methods=METHODS,
            look=functools.partial(use.look, first.objective, first.test, subset, first.name),
        )
        parts = {"everything": dataclasses.replace(one, config={**one.config, "omega": "everything"})}
        for name, pictures in used.items():
            create = functools.partial(use.create, pictures, first.name)
            config = {**one.config, "omega": name}
            parts[name] = dataclasses.replace(one, config=config, methods=("mas",), create=create)
        return Suite(self.NAME, parts, adaptation)

    def _facts(self) -> tuple[Any, list[Task], Tensor]:
        """The network, the tasks, and the labels of the subset: its facts and as many others, then the rest in two."""
        start = functools.partial(facts.embedding, self.network)
        start(0)
        (train, test), source = facts.read(self.data)
        first, second = facts.decode(train, test, self.size, source, self.cache, self.skip_bad)
        objective = Facts(train.classes, *glove().embed([parsed(name) for name in train.classes]))
        both = [
            label for label in range(len(train.classes)) if (first[1] == label).any() and (second[1] == label).any()
        ]
        names = [train.classes[label] for label in both]
        inside = patterns.named(self.subset, names) if self.used is None else patterns.listed(self.used, names)
        subset = [label for label, one in zip(both, inside, strict=True) if one]
        others = [label for label in both if label not in subset]
        order = [others[n] for n in permutation(len(others), derive(0, "adaptation")).tolist()]
        beside, rest = order[: len(subset)], order[len(subset) :]
        groups = [subset + beside, rest[::2], rest[1::2]]
        if not subset or not all(groups):
            raise ForgetlessError(
                f"{self.data} has {len(subset)} facts of {self.used or self.subset}, and {len(others)} others; of the "
                "others it takes as many for the first task, and one each for two more."
            )
        tasks = []
        for number, group in enumerate(groups, 1):
            part = _limited(facts.only(first, group), self.limit)
            tasks.append(Task(f"facts {number}", part, facts.only(second, group), objective))
        return start, tasks, torch.tensor(subset)

    def _pictures(self) -> tuple[Any, list[Task], Tensor]:
        """The network, the tasks, and the labels of the subset: the classes of the first task's second set."""
        start = functools.partial(_pretrained, self.network)
        start(0)
        first, later = PICTURES[self.subset]
        read = {
            folder.name: images.load(folder, size=self.size, skip_bad=self.skip_bad, cache=self.cache)
            for folder in images.sets(self.data, (*first, *later))
        }
        limited = [dataclasses.replace(each, train=_limited(each.train, self.limit)) for each in read.values()]
        one, other, *rest = limited
        classes = (*classes_of(one), *classes_of(other))
        before = len(classes_of(one))
        train, test = (
            facts.joined([a, (b[0], b[1] + before)]) for a, b in ((one.train, other.train), (one.test, other.test))
        )
        both = classification(f"{one.name} and {other.name}", classes, train, test)
        return start, [both, *rest], torch.arange(before, len(classes))


def _names(task: Task, labels: Tensor) -> list[str]:
    """The facts of these labels, for the config: a file that lists them may change."""
    assert isinstance(task.objective, Facts)
    return [task.objective.names[label] for label in labels.tolist()]


def _limited(samples: tuple[Tensor, Tensor], each: int | None) -> tuple[Tensor, Tensor]:
    """At most so many pictures of a class, the same every time."""
    if each is None:
        return samples
    chosen = []
    order = torch.randperm(len(samples[1]), generator=torch.Generator().manual_seed(0))
    for label in torch.unique(samples[1]):
        chosen.append(order[samples[1][order] == label][:each])
    rows = torch.cat(chosen).sort().values
    return samples[0][rows], samples[1][rows]


def _pretrained(network: str, seed: int) -> Network:
    return pretrained(network)
