"""A picture set on disk → a `Task`: decoded once, cut to squares of one size, kept as uint8.

Two layouts are read, both with `train` and `test`:

    DIR/train/<class>/*.jpg              an ImageFolder tree; the classes are the folders, sorted by name
    DIR/train.parquet, DIR/test.parquet  as Hugging Face `datasets` writes them: a column of pictures (bytes or the
                                         path of a file), a column of labels, the names of the classes in the metadata
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from forgetless.errors import ForgetlessError
from forgetless.parameters import listing
from forgetless.task import Task

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class _Split:
    """The pictures of a split before decoding: encoded bytes or files, what to call each, and their labels."""

    classes: tuple[str, ...]
    pictures: Sequence[bytes | Path]
    names: Sequence[str]
    labels: Tensor

    def only(self, chosen: Tensor) -> _Split:
        """The pictures of the numbers `chosen`."""
        numbers = chosen.tolist()
        pictures, names = [self.pictures[i] for i in numbers], [self.names[i] for i in numbers]
        return _Split(self.classes, pictures, names, self.labels[chosen])


def load(folder: str | Path, *, size: int, limit: int | None = None, seed: int = 0) -> Task:
    """Read the picture set in `folder` as a task named after it.

    A picture is turned upright, made RGB, scaled until its shorter side has `size` pixels and cut to the square in
    its middle.

    Args:
        folder: an ImageFolder tree or a pair of Parquet files.
        size: pixels per side.
        limit: the most training pictures to keep, every class in proportion and with one at least; None for all. The
            test pictures are all kept.
        seed: decides which are kept.

    Returns:
        A task with inputs uint8 `[N, 3, size, size]`.

    Raises:
        ForgetlessError: the folder or a split is missing, empty or no picture set, a picture cannot be read (naming
            it), a label is outside the classes, train and test have different classes, `limit` is below the number of
            classes, or a package that reads them is not installed.
    """
    folder = Path(folder)
    if size < 1 or (limit is not None and limit < 1):
        raise ForgetlessError(f"size and limit must be at least 1, not {size} and {limit}.")
    if not folder.is_dir():
        raise ForgetlessError(f"{folder} is no folder; a task is a folder with train/ and test/, or two Parquet files.")
    train, test = _read(folder, "train"), _read(folder, "test")
    if train.classes != test.classes:
        only = sorted(set(train.classes) ^ set(test.classes)) or train.classes
        raise ForgetlessError(f"train and test of {folder} differ in their classes: {listing(only)}.")
    if limit is not None and limit < len(train.labels):
        train = train.only(stratified(train.labels, limit, seed))
    name = folder.resolve().name
    return Task(name, train.classes, (_decode(train, size), train.labels), (_decode(test, size), test.labels))


def stratified(labels: Tensor, limit: int, seed: int) -> Tensor:
    """The numbers, ascending, of `limit` samples: every class in proportion, none without a sample.

    Args:
        labels: int64 `[N]`.
        limit: how many to choose.
        seed: decides which.

    Raises:
        ForgetlessError: `limit` is below the number of classes that occur.
    """
    classes = torch.unique(labels)
    if limit < len(classes):
        raise ForgetlessError(f"a limit of {limit} pictures leaves some of the {len(classes)} classes without one.")
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    turn = torch.empty(len(labels), dtype=torch.float64)
    for label in classes:
        mine = order[labels[order] == label]
        turn[mine] = torch.arange(len(mine), dtype=torch.float64) / len(mine)
    # Sample k of a class of n is due at k/n; ties go by the random order.
    return order[turn[order].argsort(stable=True)[:limit]].sort().values


def _read(folder: Path, split: str) -> _Split:
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


def _read_tree(tree: Path) -> _Split:
    classes = tuple(sorted(each.name for each in tree.iterdir() if each.is_dir()))
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        mine = sorted(path for path in (tree / name).rglob("*") if path.suffix.lower() in SUFFIXES)
        paths += mine
        labels += [label] * len(mine)
    return _Split(classes, paths, [str(path) for path in paths], torch.tensor(labels, dtype=torch.int64))


def _read_parquet(path: Path) -> _Split:
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
    return _Split(classes, encoded, names, torch.tensor(found, dtype=torch.int64))


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


def _decode(split: _Split, size: int) -> Tensor:
    """The pictures of a split, uint8 `[N, 3, size, size]`."""
    # Decoding lets go of Python's lock, so threads do speed it up.
    with ThreadPoolExecutor() as pool:
        squares = pool.map(_square, split.pictures, split.names, [size] * len(split.names))
        return torch.stack(list(squares))


def _square(picture: bytes | Path, name: str, size: int) -> Tensor:
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ForgetlessError(f"{name} needs Pillow: pip install 'forgetless[vision]'.") from error
    try:
        with Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture) as image:
            image.draft("RGB", (2 * size, 2 * size))  # lets JPEG skip detail that scaling would drop
            upright = ImageOps.exif_transpose(image).convert("RGB")
            square = ImageOps.fit(upright, (size, size), Image.Resampling.BILINEAR)
    except Exception as error:
        raise ForgetlessError(f"{name} is no picture that can be read: {_brief(error)}.") from error
    return torch.from_numpy(np.array(square)).permute(2, 0, 1)


def _brief(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
