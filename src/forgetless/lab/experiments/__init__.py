"""Experiments to run, by name: a stream of tasks, a network, a recipe and the methods to compare."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from forgetless.errors import ForgetlessError
from forgetless.lab.experiments import (
    authors_demo,
    demo,
    eight_tasks,
    mas_2018,
    permuted_mnist,
    sequence,
    split_cifar100,
    split_mnist,
    split_tiny_imagenet,
)
from forgetless.lab.running.experiment import Experiment, Suite
from forgetless.model.parameters import listing

EXPERIMENTS: dict[str, Callable[..., Experiment | Suite]] = {
    "demo": demo.experiment,
    "sequence": sequence.experiment,
    "eight-tasks": eight_tasks.experiment,
    "mas-2018": mas_2018.experiment,
    "split-mnist": split_mnist.experiment,
    "permuted-mnist": permuted_mnist.experiment,
    "authors-demo": authors_demo.experiment,
    "split-cifar100": split_cifar100.experiment,
    "split-tiny-imagenet": split_tiny_imagenet.experiment,
}


def create(name: str, **options: Any) -> Experiment | Suite:
    """The experiment of that name, with its data read and its options set; what is not given has its default.

    Raises:
        ForgetlessError: no experiment has that name, it has no such option, or it lacks one or its data.
    """
    if name not in EXPERIMENTS:
        raise ForgetlessError(f"there is no experiment {name!r}; there are {listing(EXPERIMENTS)}.")
    known = inspect.signature(EXPERIMENTS[name]).parameters
    unknown = [option for option in options if option not in known]
    missing = [each.name for each in known.values() if each.default is each.empty and each.name not in options]
    if unknown:
        raise ForgetlessError(f"the experiment {name!r} has no option {listing(unknown)}; it has {listing(known)}.")
    if missing:
        raise ForgetlessError(f"the experiment {name!r} needs {listing(missing)}.")
    return EXPERIMENTS[name](**options)
