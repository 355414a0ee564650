"""Data to learn from and data to keep, as numbered samples: those to train or measure on, and those held out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forgetless.errors import ForgetlessError
from forgetless.lab.datasets.reading import documents, folder, tables, unlabeled
from forgetless.lab.datasets.reading.decoding import NoneReadable, decode
from forgetless.lab.datasets.reading.pictures import Pictures
from forgetless.lab.finetuning.encoding import encode, padded
from forgetless.lab.finetuning.loaded import Kind, Loaded
from forgetless.model.parameters import listing

_HELD_SHARE, _HELD_MOST = 0.2, 1000
_LOOKED_AT = 64  # pictures at a time, to find those that cannot be read


@dataclass(frozen=True)
class Samples:
    """Samples that are read when they are asked for.

    Attributes:
        take: the numbers of samples → a batch of inputs, and which of the numbers it holds.
        listing: a hash of what they are.
        numbers: those to train or to measure on.
        held: those to judge by, which are never trained or measured on.
        labels: int64, by number; None without labels.
        classes: the names of the classes; label c is `classes[c]`.
    """

    take: Callable[[Sequence[int]], tuple[Any, Sequence[int]]]
    listing: str
    numbers: tuple[int, ...]
    held: tuple[int, ...]
    labels: Tensor | None = None
    classes: tuple[str, ...] = ()

    def at_most(self, most: int) -> Samples:
        """At most so many to measure on, spread evenly over all."""
        step = max(1.0, len(self.numbers) / most)
        return replace(self, numbers=tuple(self.numbers[int(n * step)] for n in range(min(most, len(self.numbers)))))

    def readable(self, what: str) -> Samples:
        """Without the pictures that cannot be read, with a warning; all are decoded once to find them.

        Raises:
            ForgetlessError: none is left, none that is held out, or none of a class.
        """
        wanted, good = [*self.numbers, *self.held], set[int]()
        for start in range(0, len(wanted), _LOOKED_AT):
            try:
                good.update(self.take(wanted[start : start + _LOOKED_AT])[1])
            except NoneReadable as error:
                warnings.warn(str(error), stacklevel=2)
        numbers, held = (tuple(n for n in part if n in good) for part in (self.numbers, self.held))
        bad = [n for n in wanted if n not in good]
        left = set() if self.labels is None else set(self.labels[list(numbers)].tolist())
        gone = [name for label, name in enumerate(self.classes) if label not in left]
        if not numbers or not held or gone:
            which = f"of the class {listing(gone)} " if gone and numbers else "" if not numbers else "held out "
            raise ForgetlessError(f"{what}: no picture {which}can be read ({len(bad)} of {len(wanted)} cannot).")
        listed = unlabeled.hashed([self.listing, *map(str, bad)]) if bad else self.listing
        return replace(self, numbers=numbers, held=held, listing=listed)


class Batches:
    """The samples of some numbers in batches of equal size (±1): in their order, or in a new one at every iteration.

    A batch is inputs and labels, or only inputs where `labels` is None; token numbers carry their labels with them.
    """

    def __init__(
        self,
        samples: Samples,
        numbers: Sequence[int],
        size: int,
        *,
        labels: Tensor | None = None,
        shuffled: bool = False,
    ) -> None:
        self._samples, self._numbers, self._labels = samples, torch.tensor(numbers), labels
        self._size, self._shuffled = size, shuffled

    def __len__(self) -> int:
        return -(-len(self._numbers) // self._size)

    def __iter__(self) -> Iterator[Any]:
        count = len(self._numbers)
        order = torch.randperm(count) if self._shuffled else torch.arange(count)
        for part in self._numbers[order].tensor_split(len(self)):
            inputs, present = self._samples.take(part.tolist())
            if self._labels is None:
                yield inputs
            elif isinstance(inputs, dict):
                yield {**inputs, "labels": self._labels[list(present)]}
            else:
                yield inputs, self._labels[list(present)]


def texts(
    loaded: Loaded, path: Path, *, text: str | None, label: str | None, length: int, seed: int, what: str
) -> Samples:
    """The texts of a file, a part of which is held out.

    Args:
        loaded: the model that reads them.
        path: a .txt, .jsonl, .csv or .parquet file.
        text: the field with the text.
        label: the field with the label; None where no labels are needed.
        length: the most tokens of a sample.
        seed: decides which are held out.
        what: what a complaint calls the data: "--new".

    Raises:
        ForgetlessError: the file cannot be read, lacks a field, or holds too few texts.
    """
    found = documents.read(path, text, label)
    split = loaded.kind is Kind.CAUSAL_LM
    rows = encode(loaded.tokenizer, found.documents, loaded.longest(length), split=split)
    classes = tuple(sorted(set(found.labels or ())))
    numbered = {name: number for number, name in enumerate(classes)}
    labels = None if found.labels is None else torch.tensor([numbered[each] for each in found.labels])

    def take(numbers: Sequence[int]) -> tuple[Any, Sequence[int]]:
        return padded(loaded.tokenizer, [rows[n] for n in numbers]), numbers

    hashed = unlabeled.hashed([repr(row) for row in rows] + (found.labels or []))
    numbers, held = _parted(len(rows), labels, seed, f"{what} {path}")
    return Samples(take, hashed, numbers, held, labels, classes)


def pictures(path: Path, *, size: int, labeled: bool, skip_bad: bool, seed: int, what: str) -> Samples:
    """The pictures of a dataset, of a folder or of a Parquet file; its test part is held out, or a part of all.

    Args:
        path: a folder with a folder per class, a dataset with train and test, a .parquet file; without labels, also
            any folder of pictures.
        size: pixels per side.
        labeled: whether labels are needed.
        skip_bad: leave out pictures that cannot be read.
        seed: decides which are held out.
        what: what a complaint calls the data: "--new".

    Raises:
        ForgetlessError: there are no pictures, no labels where they are needed, or too few.
    """
    parts = _pictures(path, labeled)
    first = parts[0]
    listed = [picture for part in parts for picture in part.pictures]
    names = [name for part in parts for name in part.names]
    labels = torch.cat([part.labels for part in parts])
    if not listed:
        raise ForgetlessError(f"{path} holds no pictures.")

    def take(numbers: Sequence[int]) -> tuple[Any, Sequence[int]]:
        marked = torch.tensor(list(numbers))
        chosen = Pictures(first.classes, [listed[n] for n in numbers], [names[n] for n in numbers], marked)
        decoded, present = decode(chosen, size, skip_bad=skip_bad)
        return decoded, present.tolist()

    whole = Pictures(first.classes, listed, names, labels)
    known = labels if first.classes else None
    if len(parts) == 2:
        test = range(len(first.pictures), len(listed))
        numbers = tuple(range(len(first.pictures)))
        held = (
            tuple(test[number * len(test) // _HELD_MOST] for number in range(_HELD_MOST))
            if (len(test) > _HELD_MOST)
            else tuple(test)
        )
    else:
        numbers, held = _parted(len(listed), known, seed, f"{what} {path}")
    return Samples(take, whole.listing()[:16], numbers, held, known, first.classes)


def _pictures(path: Path, labeled: bool) -> list[Pictures]:
    """The pictures in one part, or in two where the dataset has a test part. Without labels, there are no classes."""
    if path.suffix == ".parquet":
        try:
            return [tables.read(path, path.parent)]
        except ForgetlessError:
            if labeled:
                raise
        found, names, _ = tables.with_texts(path, path.parent, ())
        return [Pictures((), found, names, torch.zeros(len(found), dtype=torch.int64))]
    if not path.is_dir():
        reason = "there is no such folder or file" if not path.exists() else "it is no folder and no .parquet file"
        raise ForgetlessError(f"{path} cannot be read as pictures: {reason}.")
    if any((path / name).exists() for name in ("train", "train.parquet")):
        return list(folder.read(path))
    found_classes = folder.class_folders(path, [])
    if len(found_classes.classes) > 1 or (labeled and found_classes.classes):
        return [found_classes]
    if labeled:
        raise ForgetlessError(f"{path} has no folder of pictures for each class, so their labels are not known.")
    below = sorted(folder.pictures_below(path))
    return [Pictures((), below, [str(each) for each in below], torch.zeros(len(below), dtype=torch.int64))]


def _parted(count: int, labels: Tensor | None, seed: int, what: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The numbers in two parts: a fifth of all (of every class), at most about 1,000, is held out."""
    share = min(_HELD_SHARE, _HELD_MOST / max(1, count))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    groups = [order] if labels is None else [order[labels[order] == label] for label in torch.unique(labels)]
    held = sorted(number for group in groups for number in group[: round(share * len(group))].tolist())
    if not held:
        of_each = " of a class" if labels is not None and len(groups) > 1 else ""
        raise ForgetlessError(f"{what} holds {count} samples; five or more{of_each} are needed, to hold out a fifth.")
    chosen = set(held)
    return tuple(number for number in range(count) if number not in chosen), tuple(held)


def numbered(samples: Samples, classes: Sequence[str]) -> Samples | None:
    """The same samples with labels numbered as in `classes`; None where a class of theirs is none of these."""
    if samples.labels is None or not set(samples.classes) <= set(classes):
        return None
    to = torch.tensor([list(classes).index(name) for name in samples.classes])
    return replace(samples, labels=to[samples.labels], classes=tuple(classes))


def refuse_single_class(samples: Samples, path: Path) -> None:
    """Refuse labels that are all alike.

    Raises:
        ForgetlessError: there are fewer than two classes.
    """
    if len(samples.classes) < 2:
        raise ForgetlessError(f"{path} has one class, {listing(samples.classes)}: there is nothing to tell apart.")
