"""One image dataset with many classes, split into tasks of a few each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from forgetless.errors import ForgetlessError
from forgetless.lab.datasets import entry
from forgetless.lab.datasets.reading.entry import Parts
from forgetless.lab.datasets.reading.folder import read
from forgetless.lab.datasets.reading.pictures import Pictures
from forgetless.lab.experiments.parts import images
from forgetless.lab.experiments.parts.settings import setting
from forgetless.learn.seeding import derive, permutation
from forgetless.learn.task import Task


def data_setting(title: str) -> Any:
    """The setting `data` of an experiment on a set of that title."""
    about = f"The root of the image datasets; or the folder of any one, for a slice where {title} is not there."
    return setting(help=about, place=True)


def split(
    name: str,
    data: str | Path,
    classes: int,
    size: int,
    *,
    tasks: int | None = None,
    limit: int | None = None,
    shuffle: bool = False,
    skip_bad: bool = False,
    cache: Path | None = None,
) -> list[Task]:
    """The tasks of a set in the catalog, or of any image dataset in a folder.

    Args:
        name: of the set in the catalog.
        data: the root of all sets; or the folder of any image dataset (`forgetless.lab.datasets.reading.folder`), for a
            slice of the experiment where the set itself is not there.
        classes: how many each task has; classes left over at the end are left out.
        size: pixels per side.
        tasks: how many tasks; None for as many as there are classes for.
        limit: the most training pictures of a task.
        shuffle: in an order of the classes that is the same every time, instead of the set's own.
        skip_bad: leave out pictures that cannot be read.
        cache: a folder for decoded pictures.

    Raises:
        ForgetlessError: the set is not there (saying how to get it) or damaged, or has too few classes.
    """
    folder = Path(data)
    own = (folder / "train").is_dir() or (folder / "train.parquet").is_file()
    train, test = read(folder) if own else entry(name).load(folder)
    found = len(train.classes) // classes
    count = found if tasks is None else tasks
    if not 1 <= count <= found:
        raise ForgetlessError(
            f"{folder} has {len(train.classes)} classes, which is {found} tasks of {classes} and not {count}."
        )
    order = permutation(len(train.classes), derive(0, "classes")).tolist() if shuffle else range(len(train.classes))
    return [
        images.task(
            f"classes {first + 1} to {first + classes}",
            *_parts((train, test), list(order[first : first + classes])),
            size=size,
            limit=limit,
            skip_bad=skip_bad,
            cache=cache,
        )
        for first in range(0, count * classes, classes)
    ]


def _parts(parts: Parts, chosen: list[int]) -> Parts:
    """The pictures of the chosen classes, labeled in their order."""
    one, other = (_only(part, chosen) for part in parts)
    return one, other


def _only(part: Pictures, chosen: list[int]) -> Pictures:
    labels = torch.full((len(part.classes),), -1)
    labels[chosen] = torch.arange(len(chosen))
    mine = (labels[part.labels] >= 0).nonzero().flatten()
    kept = part.only(mine)
    return Pictures(tuple(part.classes[c] for c in chosen), kept.pictures, kept.names, labels[kept.labels])
