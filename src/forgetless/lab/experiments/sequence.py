"""Anyone's own picture sets, learned in order by a network that knows ImageNet."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from forgetless.errors import ForgetlessError
from forgetless.lab.experiments.parts import images
from forgetless.lab.networks.pretrained import pretrained
from forgetless.lab.running.experiment import Experiment
from forgetless.learn.heads import MultiHead
from forgetless.learn.task import Recipe
from forgetless.model.parameters import listing


def experiment(
    tasks: Sequence[str | Path],
    *,
    network: str = "squeezenet",
    size: int = 64,
    limit: int = 1500,
    epochs: int = 15,
    lr: float = 2e-3,
    batch_size: int = 32,
    skip_bad: bool = False,
) -> Experiment:
    """Learn the picture sets in the folders `tasks`, one after the other.

    The defaults are a regime in which fine-tuning learns clearly more than a frozen backbone, so that there is something
    to protect. Every picture is decoded once; batch-norm statistics are held.

    Args:
        tasks: folders, each an ImageFolder tree or two Parquet files (`forgetless.lab.experiments.parts.images`).
        network: "squeezenet" or "efficientnet-lite0".
        size: pixels per side.
        limit: the most training pictures of a task.
        epochs: passes over each task.
        lr: the learning rate at the start of each task; it falls to zero along a cosine.
        batch_size: the most pictures in a step.
        skip_bad: leave out pictures that cannot be read, counted and named.

    Raises:
        ForgetlessError: no task, two of the same name, a network that does not exist or is not installed, or a
            folder that is no picture set.
    """
    names = [Path(folder).resolve().name for folder in tasks]
    if not names or len(set(names)) < len(names):
        raise ForgetlessError(f"a sequence needs task folders of different names, not {listing(names)}.")
    recipe = Recipe(lr, epochs, batch_size, clip=5.0, schedule="cosine", freeze_batchnorm=True)
    pretrained(network)  # refuse it before reading pictures
    return Experiment(
        "sequence",
        [images.load(folder, size=size, limit=limit, skip_bad=skip_bad) for folder in tasks],
        functools.partial(_start, network),
        recipe,
        {"network": network, "size": size, "limit": limit},
        _arguments(tasks, network=network, size=size, limit=limit, epochs=epochs, lr=lr, batch_size=batch_size)
        + ["--skip-bad"] * skip_bad,
    )


def _start(network: str, seed: int) -> MultiHead:
    """The pretrained network; a function of its own, so that other processes can be told of it."""
    return pretrained(network)


def _arguments(tasks: Sequence[str | Path], **options: object) -> list[str]:
    """The command line's words; of an absolute path only the last part, for results are passed on."""
    folders = [Path(folder).name if Path(folder).is_absolute() else str(folder) for folder in tasks]
    words = [word for folder in folders for word in ("--task", folder)]
    return words + [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
