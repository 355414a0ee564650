"""Unlabeled samples as a service collects them: folders of pictures, Parquet, texts in JSON Lines; read in batches."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from forgetless import files
from forgetless.errors import ForgetlessError, brief, quoted
from forgetless.lab.datasets.reading import tables
from forgetless.lab.datasets.reading.decoding import NoneReadable, decode
from forgetless.lab.datasets.reading.folder import pictures_below
from forgetless.lab.datasets.reading.folder import read as read_dataset
from forgetless.lab.datasets.reading.pictures import Picture, Pictures

#: Texts → a batch that the model takes.
Encode = Callable[[list[str]], Any]
_FIELDS = ("input_ids", "text")
_MOST_BYTES = 1 << 30  # of a file of texts


@dataclass(frozen=True)
class Unlabeled:
    """Samples, none of which is read before it is asked for.

    Attributes:
        count: how many there are.
        listing: a hash of what they are called, in order, or of the texts; not of the pictures.
        batch: the numbers of samples → a batch, or None where none of them can be read and such are left out.
    """

    count: int
    listing: str
    batch: Callable[[Sequence[int]], Any]

    def spread(self, most: int | None) -> Unlabeled:
        """At most so many of them, spread evenly over all."""
        if most is None or most >= self.count:
            return self
        numbers = [number * self.count // most for number in range(most)]
        return Unlabeled(most, self.listing, lambda chosen: self.batch([numbers[n] for n in chosen]))

    def batches(self, size: int, skip: int = 0) -> Iterator[tuple[int, Any]]:
        """The samples from number `skip` on, in order: how many were read by then, and a batch."""
        for start in range(skip, self.count, size):
            stop = min(start + size, self.count)
            yield stop, self.batch(range(start, stop))


def read(path: Path, size: int, *, encode: Encode | None = None, skip_bad: bool = False) -> Unlabeled:
    """The samples of a file or a folder.

    - a folder: the training pictures of an image dataset, or all pictures in it and below it, by name;
    - a Parquet file with a column of pictures;
    - a `.jsonl` file, an object per line with `input_ids`, or with `text` for `encode`.

    Args:
        path: the file or folder.
        size: pixels per side of pictures.
        encode: makes a batch of texts.
        skip_bad: leave out pictures that cannot be read, with a warning.

    Raises:
        ForgetlessError: it is none of these, empty, or damaged.
    """
    with files.told(path, "read"):
        if path.is_dir():
            return _pictures(*_folder(path), size, skip_bad)
    if path.suffix == ".parquet":
        pictures, names, _ = tables.with_texts(path, path.parent, ())
        return _pictures(pictures, names, path, size, skip_bad)
    if path.suffix == ".jsonl":
        return _texts(path, encode)
    raise ForgetlessError(f"{path} is no folder of pictures, .parquet or .jsonl file.")


def _folder(path: Path) -> tuple[Sequence[Picture], Sequence[str], Path]:
    if any((path / name).exists() for name in ("train", "train.parquet")):
        train, _ = read_dataset(path)
        return train.pictures, train.names, path
    found = sorted(pictures_below(path))
    return found, [str(each) for each in found], path


def _pictures(pictures: Sequence[Picture], names: Sequence[str], path: Path, size: int, skip_bad: bool) -> Unlabeled:
    if not pictures:
        raise ForgetlessError(f"{path} holds no pictures.")

    def batch(numbers: Sequence[int]) -> Any:
        chosen = [pictures[n] for n in numbers], [names[n] for n in numbers]
        listed = Pictures(("",), *chosen, torch.zeros(len(numbers), dtype=torch.int64))
        try:
            return decode(listed, size, skip_bad=skip_bad)[0]
        except NoneReadable as error:
            warnings.warn(f"left out {len(numbers)} pictures: {error}", stacklevel=2)
            return None

    return Unlabeled(len(pictures), hashed(names), batch)


def _texts(path: Path, encode: Encode | None) -> Unlabeled:
    try:
        text = files.read_bytes(path, _MOST_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ForgetlessError(f"{path} is no text in UTF-8: {brief(error)}.") from error
    # Lines end in "\n" alone: JSON allows other separators of lines inside a text.
    lines = {f"line {number} of {path}": line for number, line in enumerate(text.split("\n"), 1) if line.strip()}
    if not lines:
        raise ForgetlessError(f"{path} is empty.")
    rows = {where: files.parse_json(line, where) for where, line in lines.items()}
    where, first = next(iter(rows.items()))
    field = next((field for field in _FIELDS if isinstance(first, dict) and field in first), None)
    if field is None:
        raise ForgetlessError(f"{where} is no object with {' or '.join(_FIELDS)}.")
    found = [_checked(row, field, where) for where, row in rows.items()]
    listing = hashed(lines.values())
    if field == "text":
        if encode is None:
            raise ForgetlessError(f"{path} holds texts: name a function that makes a batch of them with --encode.")
        return Unlabeled(len(found), listing, lambda numbers: encode([found[n] for n in numbers]))
    return Unlabeled(len(found), listing, lambda numbers: _padded([found[n] for n in numbers]))


def hashed(texts: Iterable[str]) -> str:
    """A short hash of texts, in order."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(f"{len(text)} {text}".encode())
    return digest.hexdigest()[:16]


def _checked(row: Any, field: str, where: str) -> Any:
    value = row.get(field) if isinstance(row, dict) else None
    if field == "text" and isinstance(value, str):
        return value
    numbers = isinstance(value, list) and value and all(type(each) is int and 0 <= each < 1 << 31 for each in value)
    if field == "input_ids" and numbers:
        return value
    raise ForgetlessError(f"{where} has {quoted(value)} for {field}.")


def _padded(rows: list[list[int]]) -> dict[str, torch.Tensor]:
    """Token numbers of unequal length as one batch, with the mask of the positions that are there."""
    longest = max(map(len, rows))
    ids = torch.zeros(len(rows), longest, dtype=torch.int64)
    mask = torch.zeros(len(rows), longest, dtype=torch.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)], mask[number, : len(row)] = torch.tensor(row), 1
    return {"input_ids": ids, "attention_mask": mask}
