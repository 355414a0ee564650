"""A data set on disk → a `Task`: decoded once, cut to squares of one size, kept as uint8."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from forgetless.errors import ForgetlessError
from forgetless.lab.datasets.reading.cache import decoded
from forgetless.lab.datasets.reading.decoding import WHITE, Color
from forgetless.lab.datasets.reading.folder import read
from forgetless.lab.datasets.reading.pictures import Pictures
from forgetless.lab.datasets.reading.pictures import stratified as stratified
from forgetless.learn.task import Task


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
    """Read the data set in `folder` as a task named after it.

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
        ForgetlessError: the folder or a split is missing, empty or not a data set, a picture cannot be read (naming
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
    return Task(name, train.classes, first, second)


def with_tests(task: Task, most: int) -> Task:
    """The task with at most so many test pictures, every class in proportion; the same ones every time."""
    inputs, labels = task.test
    if len(labels) <= most:
        return task
    chosen = stratified(labels, most, 0)
    return dataclasses.replace(task, test=(inputs[chosen], labels[chosen]))
