"""A dataset in a folder, in one of two layouts, both with `train` and `test`.

DIR/train/<class>/*.jpg              an ImageFolder tree; the classes are the folders that hold pictures, sorted by name
DIR/train.parquet, DIR/test.parquet  as Hugging Face `datasets` writes them (`forgetless.lab.datasets.reading.tables`)
"""

from __future__ import annotations

import os
import unicodedata
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.lab.datasets.reading import tables
from forgetless.lab.datasets.reading.pictures import Pictures
from forgetless.model.parameters import listing

#: What is taken for a picture. Some are formats that are not read, so that they are named and not passed over.
SUFFIXES = frozenset(
    (
        *(".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".jxl"),
        *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
    )
)
_SYSTEM = frozenset({"__macosx", "@eadir", "lost+found", "$recycle.bin", "#recycle", "system volume information"})
_DEEPEST = 32


def read(folder: Path) -> tuple[Pictures, Pictures]:
    """The training and the test pictures.

    Folders that are empty, hidden or made by an operating system are no classes; a warning names them. Names of classes
    are compared in Unicode's NFC, in which systems store the same name alike.

    Raises:
        ForgetlessError: the folder or a split is missing, empty or not a dataset, a file lies outside the folder or
            its links lead in a circle, a label is outside the classes, train and test have different classes, or
            pyarrow is not installed.
    """
    with files.told(folder, "read"):
        if not folder.is_dir():
            raise ForgetlessError(
                f"{folder} is no folder; a task is a folder with train/ and test/, or two Parquet files."
            )
        passed: list[str] = []
        train = _read(folder, "train", (), passed)
        test = _read(folder, "test", train.classes, passed)
    if passed:
        warnings.warn(f"{folder}: {listing(passed)} are left out: hidden, or no folders with pictures.", stacklevel=3)
    if train.classes != test.classes:
        only = sorted(set(train.classes) ^ set(test.classes)) or train.classes
        raise ForgetlessError(f"train and test of {folder} differ in their classes: {listing(only)}.")
    counts = torch.bincount(train.labels, minlength=len(train.classes))
    if single := [train.classes[label] for label in (counts == 1).nonzero().flatten().tolist()]:
        warnings.warn(
            f"{folder} has a single training picture of {listing(single)}, so that none is left to tune on.",
            stacklevel=3,
        )
    return train, test


def _read(folder: Path, split: str, known: tuple[str, ...], passed: list[str]) -> Pictures:
    table, tree = folder / f"{split}.parquet", folder / split
    if table.exists():
        found = tables.read(table, folder, known)
    elif tree.is_dir():
        found = class_folders(tree, passed)
    else:
        raise ForgetlessError(
            f"{folder} has neither {split}.parquet nor a folder {split}/, so it is not a dataset: one has pictures in "
            "train/CLASS/ and test/CLASS/, or train.parquet and test.parquet."
        )
    if not len(found.labels):
        raise ForgetlessError(f"{table if table.exists() else tree} holds no pictures.")
    return found


def class_folders(tree: Path, passed: list[str]) -> Pictures:
    """The pictures in the folders of a folder, a class each; adds to `passed` what is left out and might be meant.

    Raises:
        ForgetlessError: a file lies outside the folder, or its links lead in a circle.
    """
    inside = files.Inside(tree)
    by_class: dict[str, list[Path]] = {}
    for each in sorted(tree.iterdir()):
        if not each.is_dir():
            if not _hidden(each.name) and (each.suffix.lower() in SUFFIXES or each.is_symlink()):
                passed.append(f"{tree.name}/{each.name}")
        elif _hidden(each.name) or not (mine := sorted(_pictures(each, inside))):
            passed.append(f"{tree.name}/{each.name}/")
        else:
            by_class.setdefault(unicodedata.normalize("NFC", each.name), []).extend(mine)
    classes = tuple(sorted(by_class))
    paths = [path for name in classes for path in by_class[name]]
    labels = [label for label, name in enumerate(classes) for _ in by_class[name]]
    return Pictures(classes, paths, [str(path) for path in paths], torch.tensor(labels, dtype=torch.int64))


def pictures_below(folder: Path) -> list[Path]:
    """All pictures in a folder and below it, whatever they are called.

    Raises:
        ForgetlessError: a link leads outside the folder or in a circle.
    """
    return list(_pictures(folder, files.Inside(folder)))


def _hidden(name: str) -> bool:
    """What systems and editors leave: no classes and no pictures."""
    return name.startswith(".") or name.casefold() in _SYSTEM


def _pictures(folder: Path, inside: files.Inside, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """The pictures in a folder and below it, each a regular file inside the tree."""
    here = os.path.realpath(folder)
    if here in above or len(above) == _DEEPEST:
        raise ForgetlessError(f"{folder} cannot be read: its links lead in a circle, or its folders are too deep.")
    if wrong := inside.outside(folder):
        raise ForgetlessError(f"{folder} cannot be read: {wrong}; copy it there, or name the folder that it lies in.")
    for each in folder.iterdir():
        if _hidden(each.name):
            continue
        if each.is_dir():
            yield from _pictures(each, inside, (*above, here))
        elif each.suffix.lower() in SUFFIXES:
            yield inside.file(each)
