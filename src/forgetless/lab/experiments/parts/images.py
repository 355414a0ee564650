"""A dataset on disk → a `Task`: decoded once, cut to squares of one size, kept as uint8."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from forgetless.errors import ForgetlessError
from forgetless.lab.datasets.reading.cache import decoded
from forgetless.lab.datasets.reading.decoding import WHITE, Color
from forgetless.lab.datasets.reading.folder import read
from forgetless.lab.datasets.reading.pictures import Pictures
from forgetless.lab.datasets.reading.pictures import stratified as stratified
from forgetless.lab.experiments.parts.settings import setting
from forgetless.lab.networks.pretrained import NETWORKS
from forgetless.learn.classification import classification
from forgetless.learn.task import Task


def network_setting() -> Any:
    """The setting `network` of experiments that begin with a pretrained one."""
    return setting("squeezenet", help="A network pretrained on ImageNet.", choices=tuple(NETWORKS))


def size_setting() -> Any:
    """The setting `size`."""
    return setting(64, help="Pixels per side.", least=1)


def limit_setting(default: int | None) -> Any:
    """The setting `limit`."""
    return setting(default, help="The most training pictures of a task.", least=1, absent="all")


def rate_setting() -> Any:
    """The setting `lr` of a rate that falls."""
    about = "The learning rate at the start of each task; it falls to zero along a cosine."
    return setting(2e-3, help=about, positive=True)


def batch_setting(default: int) -> Any:
    """The setting `batch_size`."""
    return setting(default, help="The most pictures in a step.", least=1)


def skip_setting() -> Any:
    """The setting `skip_bad`."""
    return setting(False, help="Leave out pictures that cannot be read; they are counted and named.")


def cache_setting(more: str = "") -> Any:
    """The setting `cache`."""
    return setting(Path("runs/decoded"), help=f"The folder for decoded pictures{more}.", place=True, shown=False)


def load(
    folder: str | Path,
    *,
    size: int,
    limit: int | None = None,
    seed: int = 0,
    cache: Path | None = None,
    skip_bad: bool = False,
    background: Color = WHITE,
) -> Task:
    """Read the dataset in `folder` as a task named after it.

    A picture is turned upright, made RGB, scaled until its shorter side has `size` pixels and cut to the square in
    its middle.

    Args:
        folder: an ImageFolder tree or a pair of Parquet files (`forgetless.lab.datasets.reading.folder`).
        size: pixels per side.
        limit: the most training pictures to keep, every class in proportion and with one at least; None for all. The
            test pictures are all kept.
        seed: decides which are kept.
        cache: a folder to keep decoded pictures in; None to keep none.
        skip_bad: leave out pictures that cannot be read, with a warning.
        background: RGB of 0 … 255, behind pictures with transparency.

    Returns:
        A task with inputs uint8 `[N, 3, size, size]`.

    Raises:
        ForgetlessError: the folder or a split is missing, empty or not a dataset, a picture cannot be read (naming
            it), a label is outside the classes, train and test have different classes, `limit` is below the number of
            classes, or a package that reads them is not installed.
    """
    folder = Path(folder)
    if size < 1 or (limit is not None and limit < 1):
        raise ForgetlessError(f"size and limit must be at least 1, not {size} and {limit}.")
    train, test = read(folder)
    return task(
        folder.resolve().name,
        train,
        test,
        size=size,
        limit=limit,
        seed=seed,
        cache=cache,
        skip_bad=skip_bad,
        background=background,
    )


def task(
    name: str,
    train: Pictures,
    test: Pictures,
    *,
    size: int,
    limit: int | None = None,
    seed: int = 0,
    cache: Path | None = None,
    skip_bad: bool = False,
    background: Color = WHITE,
) -> Task:
    """The task of that name with these pictures; options as in `load`."""
    if limit is not None and limit < len(train.labels):
        train = train.only(stratified(train.labels, limit, seed))
    first, second = decoded(train, test, size, name=name, cache=cache, skip_bad=skip_bad, background=background)
    return classification(name, train.classes, first, second)


def with_tests(task: Task, most: int) -> Task:
    """The task with at most so many test pictures, every class in proportion; the same ones every time."""
    inputs, labels = task.test
    if len(labels) <= most:
        return task
    chosen = stratified(labels, most, 0)
    return dataclasses.replace(task, test=(inputs[chosen], labels[chosen]))


def sets(data: Path, names: tuple[str, ...]) -> list[Path]:
    """The folders of those names in `data`.

    Raises:
        ForgetlessError: `data` is no folder, or lacks one: it says which, and how to get it.
    """
    if not data.is_dir():
        raise ForgetlessError(f"{data} is no folder; --data takes the one that holds {', '.join(names)}.")
    missing = [name for name in names if not (data / name).is_dir()]
    if missing:
        raise ForgetlessError(
            f"{data} lacks {', '.join(missing)}: each is a folder with train.parquet and test.parquet, or with "
            f"train/CLASS/ and test/CLASS/; `forgetless data where {missing[0]}` says what it holds and how to get it."
        )
    return [data / name for name in names]
