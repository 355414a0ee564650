"""Pictures of facts: image datasets whose classes are facts, written `subject,predicate,object`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.lab.datasets.reading.fact import PARTS, Fact, made, written
from forgetless.lab.datasets.reading.pictures import Picture, Pictures, content
from forgetless.lab.datasets.reading.tables import with_texts
from forgetless.model.parameters import listing

Parts = tuple[Pictures, Pictures]


def read(folder: Path) -> Parts:
    """Your own facts: `train.parquet` and `test.parquet` with a column of pictures and subject, predicate, object.

    Raises:
        ForgetlessError: a file is missing, damaged or lacks a column, or a row holds no fact.
    """
    found = [table(folder / f"{part}.parquet", folder) for part in ("train", "test")]
    return labeled(folder, *found)


Rows = tuple[Sequence[Picture], Sequence[str], Sequence[Fact]]  # pictures, what to call each, and the fact of each


def table(path: Path, folder: Path) -> Rows:
    """The rows of a Parquet file with the columns subject, predicate and object.

    Raises:
        ForgetlessError: as `read`.
    """
    pictures, names, parts = with_texts(path, folder, PARTS)
    return pictures, names, [made(each, name) for *each, name in zip(*parts, names, strict=True)]


def labeled(folder: Path, train: Rows, test: Rows) -> Parts:
    """Both parts under the same classes: every fact that occurs in either, in alphabetical order.

    A picture that is there twice under the same fact is left out once. One that is there under several facts stays
    under each. A warning counts both, and training pictures that are test pictures too. No file outside `folder` is
    read.
    """
    inside = files.Inside(folder)
    classes = tuple(sorted({written(fact) for part in (train, test) for fact in part[2]}))
    (first, here), (second, there) = (
        _labeled(part, classes, what, inside) for part, what in ((train, "training"), (test, "test"))
    )
    if both := len(here & there):
        warnings.warn(f"{both} test pictures are training pictures too.", stacklevel=2)
    return first, second


def _labeled(part: Rows, classes: tuple[str, ...], what: str, inside: files.Inside) -> tuple[Pictures, set[str]]:
    """A part without what is there twice, and the hashes of its pictures."""
    pictures, names, facts = part
    if not len(pictures):
        raise ForgetlessError(f"there are no {what} pictures.")
    numbers = {name: number for number, name in enumerate(classes)}
    chosen: dict[tuple[str, str], int] = {}  # (picture, fact) → where it is first
    for number, (picture, fact) in enumerate(zip(pictures, facts, strict=True)):
        path = getattr(picture, "path", picture)
        own = str(path) if isinstance(path, Path) and inside.complaint(path) else content(picture)
        chosen.setdefault((own, written(fact)), number)
    of_picture: dict[str, list[str]] = {}
    for own, fact_text in chosen:
        of_picture.setdefault(own, []).append(fact_text)
    several = [found for found in of_picture.values() if len(found) > 1]
    notes = [f"{len(pictures) - len(chosen)} are there twice, and left out once"] * (len(pictures) > len(chosen))
    notes += [
        f"{len(several)} are there under several facts, such as {listing(several[0])}, and stay under each"
        for _ in several[:1]
    ]
    if notes:
        warnings.warn(f"of the {len(pictures)} {what} pictures {'; '.join(notes)}.", stacklevel=3)
    labels = torch.tensor([numbers[fact_text] for _, fact_text in chosen], dtype=torch.int64)
    rows = list(chosen.values())
    return Pictures(classes, [pictures[n] for n in rows], [names[n] for n in rows], labels), set(of_picture)
