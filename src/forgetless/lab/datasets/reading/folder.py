"""A picture set in a folder, in one of two layouts, both with `train` and `test`:

DIR/train/<class>/*.jpg              an ImageFolder tree; the classes are the folders, sorted by name
DIR/train.parquet, DIR/test.parquet  as Hugging Face `datasets` writes them: a column of pictures (bytes or the
path of a file), a column of labels, the names of the classes in the metadata
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from forgetless.errors import ForgetlessError
from forgetless.lab.datasets.reading.pictures import Pictures
from forgetless.model.parameters import listing

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


def read(folder: Path) -> tuple[Pictures, Pictures]:
    """The training and the test pictures.

    Raises:
        ForgetlessError: the folder or a split is missing, empty or no picture set, a label is outside the classes,
            train and test have different classes, or pyarrow is not installed.
    """
    if not folder.is_dir():
        raise ForgetlessError(f"{folder} is no folder; a task is a folder with train/ and test/, or two Parquet files.")
    train, test = _read(folder, "train"), _read(folder, "test")
    if train.classes != test.classes:
        only = sorted(set(train.classes) ^ set(test.classes)) or train.classes
        raise ForgetlessError(f"train and test of {folder} differ in their classes: {listing(only)}.")
    return train, test


def _read(folder: Path, split: str) -> Pictures:
    table, tree = folder / f"{split}.parquet", folder / split
    if table.is_file():
        found = _read_parquet(table)
    elif tree.is_dir():
        found = _read_tree(tree)
    else:
        raise ForgetlessError(f"{folder} has neither {split}.parquet nor a folder {split}/, so it is no picture set.")
    if not len(found.labels):
        raise ForgetlessError(f"{table if table.is_file() else tree} holds no pictures.")
    return found


def _read_tree(tree: Path) -> Pictures:
    # Names that begin with a dot are what systems and editors leave, no classes and no pictures.
    classes = tuple(sorted(each.name for each in tree.iterdir() if each.is_dir() and not each.name.startswith(".")))
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        files = (path for path in (tree / name).rglob("*") if path.suffix.lower() in SUFFIXES)
        mine = sorted(path for path in files if not path.name.startswith("."))
        paths += mine
        labels += [label] * len(mine)
    return Pictures(classes, paths, [str(path) for path in paths], torch.tensor(labels, dtype=torch.int64))


def _read_parquet(path: Path) -> Pictures:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise ForgetlessError(f"{path} needs pyarrow: pip install 'forgetless[vision]'.") from error
    try:
        pictures, label, classes = _columns(parquet.read_schema(path).metadata or {})
        table = parquet.read_table(path)
    except (ArrowException, OSError, ValueError) as error:
        raise ForgetlessError(f"{path} cannot be read as Parquet: {_brief(error)}.") from error
    missing = [column for column in (pictures, label) if column not in table.column_names]
    if missing:
        raise ForgetlessError(f"{path} is no picture set: it has no column {listing(missing)}.")
    found = table[label].to_pylist()
    classes = classes or tuple(str(number) for number in range(1 + max(filter(_is_number, found), default=-1)))
    for row, each in enumerate(found):
        if not _is_number(each) or not 0 <= each < len(classes):
            raise ForgetlessError(f"{path} has the label {each!r} in row {row}, outside its {len(classes)} classes.")
    names = [f"row {row} of {path}" for row in range(len(found))]
    encoded = [_encoded(cell, name, path) for cell, name in zip(table[pictures].to_pylist(), names, strict=True)]
    return Pictures(classes, encoded, names, torch.tensor(found, dtype=torch.int64))


def _columns(metadata: dict[bytes, bytes]) -> tuple[str, str, tuple[str, ...]]:
    """The column of pictures, the column of labels and the names of the classes, as `datasets` notes them."""
    pictures, label = "image", "label"
    classes: tuple[str, ...] = ()
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"] if b"huggingface" in metadata else {}
        for column, feature in reversed(features.items()):
            if feature.get("_type") == "Image":
                pictures = column
            elif feature.get("_type") == "ClassLabel":
                label, classes = column, tuple(map(str, feature["names"]))
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError("its notes for Hugging Face datasets are damaged") from error
    return pictures, label, classes


def _encoded(cell: Any, name: str, path: Path) -> bytes | Path:
    """The picture in a cell of a Parquet file: bytes, or a file beside it."""
    if isinstance(cell, dict):
        cell = cell.get("bytes") or (path.parent / cell["path"] if cell.get("path") else None)
    if not isinstance(cell, (bytes, Path)):
        raise ForgetlessError(f"{name} holds no picture.")
    return cell


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _brief(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
