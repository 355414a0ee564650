"""Pictures before they are decoded: where each comes from, what it is called, its label."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from forgetless import files
from forgetless.errors import ForgetlessError

MOST_BYTES = 512 << 20  # of an encoded picture


@dataclass(frozen=True)
class Crop:
    """A part of the picture in the file `path`: the pixels from (left, top) up to (right, bottom)."""

    path: Path
    box: tuple[int, int, int, int]


#: Encoded bytes, a file, a part of a file, or pixels uint8 `[3, H, W]`.
Picture = bytes | Path | Crop | Tensor


@dataclass(frozen=True)
class Pictures:
    """Labeled pictures that are not decoded yet.

    Attributes:
        classes: the names of the classes; label c is `classes[c]`.
        pictures: where each comes from.
        names: what to call each: a file's path inside its dataset, a row of a table.
        labels: int64 `[N]`.
    """

    classes: tuple[str, ...]
    pictures: Sequence[Picture]
    names: Sequence[str]
    labels: Tensor

    def only(self, chosen: Tensor) -> Pictures:
        """The pictures of the numbers `chosen`."""
        numbers = chosen.tolist()
        pictures, names = [self.pictures[i] for i in numbers], [self.names[i] for i in numbers]
        return Pictures(self.classes, pictures, names, self.labels[chosen])

    def listing(self) -> str:
        """A SHA-256 of what is listed, of the names of the classes and of every picture with its label, in order.

        Pictures that have no file of their own are listed by their content.
        """
        digest = hashlib.sha256("\n".join(self.classes).encode())
        for picture, name, label in zip(self.pictures, self.names, self.labels.tolist(), strict=True):
            box = f" {picture.box}" if isinstance(picture, Crop) else ""
            own = name + box if isinstance(picture, (Path, Crop)) else content(picture)
            digest.update(f"\n{label} {own}".encode())
        return digest.hexdigest()

    def contents(self) -> str:
        """A SHA-256 of the classes, the labels and the bytes of every picture."""
        digest = hashlib.sha256("\n".join(self.classes).encode())
        with ThreadPoolExecutor() as pool:
            for own, label in zip(pool.map(content, self.pictures), self.labels.tolist(), strict=True):
                digest.update(f"\n{label} {own}".encode())
        return digest.hexdigest()


def content(picture: Picture) -> str:
    """The SHA-256 of a picture's bytes, with the box of a part; a file that cannot be read has that for content."""
    if isinstance(picture, Crop):
        return f"{content(picture.path)} {picture.box}"
    if isinstance(picture, Path):
        try:
            picture = files.read_bytes(picture, MOST_BYTES)
        except ForgetlessError as error:
            return f"unreadable: {error}"
    raw = picture if isinstance(picture, bytes) else picture.contiguous().numpy().tobytes()
    return hashlib.sha256(raw).hexdigest()


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


def halves(pictures: Pictures, seed: int = 0) -> tuple[Pictures, Pictures]:
    """The pictures in two halves, every class too, up to one picture; the second has one more of an odd number."""
    order = torch.randperm(len(pictures.labels), generator=torch.Generator().manual_seed(seed))
    by_class = order[pictures.labels[order].argsort(stable=True)]
    return pictures.only(by_class[1::2].sort().values), pictures.only(by_class[::2].sort().values)
