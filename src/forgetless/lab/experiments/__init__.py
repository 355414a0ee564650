"""Experiments to run, by name: a stream of tasks, a network, a recipe and the methods to compare."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from forgetless.errors import ForgetlessError
from forgetless.lab.experiments import permuted_mnist, split_cifar100, split_mnist, split_tiny_imagenet
from forgetless.lab.experiments.adaptation import Adaptation
from forgetless.lab.experiments.authors_demo import AuthorsDemo
from forgetless.lab.experiments.demo import Demo
from forgetless.lab.experiments.eight_tasks import EightTasks
from forgetless.lab.experiments.facts import FactTasks
from forgetless.lab.experiments.long_text import LongText
from forgetless.lab.experiments.mas_2018 import MAS2018
from forgetless.lab.experiments.online import OnlineStream
from forgetless.lab.experiments.parts.settings import Settings, with_paths
from forgetless.lab.experiments.permuted_mnist import PermutedMNIST
from forgetless.lab.experiments.sequence import PictureSequence
from forgetless.lab.experiments.split_cifar100 import SplitCIFAR100
from forgetless.lab.experiments.split_mnist import SplitMNIST
from forgetless.lab.experiments.split_tiny_imagenet import SplitTinyImageNet
from forgetless.lab.report.adaptation import adaptation
from forgetless.model.parameters import listing

_ALL: tuple[type[Settings], ...] = (
    Demo,
    PictureSequence,
    EightTasks,
    MAS2018,
    SplitMNIST,
    PermutedMNIST,
    AuthorsDemo,
    FactTasks,
    Adaptation,
    SplitCIFAR100,
    SplitTinyImageNet,
    OnlineStream,
    LongText,
)
EXPERIMENTS: dict[str, type[Settings]] = {kind.NAME: kind for kind in _ALL}
#: What experiments that always have several parts show of them: folder → content of `results.json`, to text.
TABLES: dict[str, Callable[[Mapping[str, Mapping[str, Any]]], str]] = {
    SplitMNIST.NAME: split_mnist.table,
    PermutedMNIST.NAME: permuted_mnist.table,
    Adaptation.NAME: adaptation,
    SplitCIFAR100.NAME: split_cifar100.table,
    SplitTinyImageNet.NAME: split_tiny_imagenet.table,
}


def create(name: str, **options: Any) -> Settings:
    """The settings of the experiment of that name; what is not given has its default. `.build()` reads the data.

    Raises:
        ForgetlessError: no experiment has that name, it has no such option, needs one that is not given, or one has a
            value that is not allowed.
    """
    if name not in EXPERIMENTS:
        raise ForgetlessError(f"there is no experiment {name!r}; there are {listing(EXPERIMENTS)}.")
    known = {each.name: each for each in dataclasses.fields(EXPERIMENTS[name])}
    unknown = [option for option in options if option not in known]
    missing = [key for key, each in known.items() if each.default is dataclasses.MISSING and key not in options]
    if unknown:
        raise ForgetlessError(f"the experiment {name!r} has no option {listing(unknown)}; it has {listing(known)}.")
    if missing:
        raise ForgetlessError(f"the experiment {name!r} needs {listing(missing)}.")
    return EXPERIMENTS[name](**with_paths(EXPERIMENTS[name], options))
