"""`Rows`: which axis of a tensor holds the samples, and which sample each of its entries belongs to."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_NAME = "_forgetless_rows"  # the attribute of a tensor that was computed from the batch
_NOTED, _REWRITTEN = "_forgetless_noted", "_forgetless_rewritten"  # when that was said, and when it ceased to hold
_ALIAS = "_forgetless_alias"  # the tensor whose memory one that is no view has
_clock = itertools.count()


@dataclass(frozen=True, eq=False)
class Rows:
    """What is known of a tensor that was computed from a batch of N samples.

    Attributes:
        axis: the axis that holds samples; None if the tensor has none: then it is one sample's alone, or constants.
        of: the sample of each entry along `axis`, `[R]`; −1 for an entry that belongs to none. None says that entries
            come in the order of the batch, as many for each sample (*regular*).
        lost: the operation after which it is no longer known which rows are whose; None where it is.
    """

    axis: int | None = None
    of: Tensor | None = None
    lost: str | None = None

    @property
    def mapped(self) -> bool:
        """Whether rows carry their sample's number."""
        return self.of is not None

    def at(self, axis: int | None) -> Rows:
        """The same along another axis."""
        return self if axis == self.axis else Rows(axis, self.of, self.lost)

    def numbers(self, length: int, samples: int) -> Tensor | None:
        """The sample of each of `length` entries; None if that is not known."""
        if self.of is not None:
            return self.of
        if self.lost is not None or self.axis is None or length % samples:
            return None
        return torch.arange(samples).repeat_interleave(length // samples)


REGULAR = Rows(0)
ALONE = Rows(None, torch.zeros(1, dtype=torch.int64))  # of a batch of one
BLANK = Rows(None)  # constants in a shape that was taken from samples: anybody's, until rows are written into them


def lost(operation: str) -> Rows:
    """Which rows are whose is no longer known after this operation."""
    return Rows(None, None, operation)


def simplified(axis: int, of: Tensor, samples: int) -> Rows:
    """Rows with the samples' numbers `of`; regular where they are in the batch's order, as many for each.

    Entries of no sample (−1) are filled in where only one order is possible.
    """
    length = len(of)
    if samples and length and length % samples == 0:
        order = torch.arange(samples).repeat_interleave(length // samples)
        if bool(((of == order) | (of < 0)).all()) and bool((of >= 0).any()):
            return Rows(axis)
    return Rows(axis, of)


def rows_of(tensor: Any) -> Rows | None:
    """What is known of a tensor; None if it was not computed from the batch."""
    rows: Rows | None = getattr(tensor, _NAME, None)
    root = None if rows is None else getattr(tensor, "_base", None)
    if root is not None and getattr(root, _REWRITTEN, -1) > getattr(tensor, _NOTED, -1):
        return lost("writing to a view")  # of the same memory, after this was said
    return rows


def note(tensor: Tensor, rows: Rows) -> None:
    """Say what is known of a tensor."""
    setattr(tensor, _NAME, rows)
    setattr(tensor, _NOTED, next(_clock))


def alias(tensor: Tensor, of: Tensor) -> None:
    """Say that a tensor has the memory of another, though it is no view of it."""
    setattr(tensor, _ALIAS, of)


def alias_of(tensor: Tensor) -> Tensor | None:
    """What a tensor has the memory of, as far as that was said."""
    found: Tensor | None = getattr(tensor, _ALIAS, None)
    return found


def rewrite(tensor: Tensor) -> None:
    """Say that rows of this tensor, which is no view, changed hands: what was said of its views holds no more."""
    setattr(tensor, _REWRITTEN, next(_clock))


def begin(tensor: Tensor, samples: int) -> None:
    """A tensor of the batch itself, whose rows are the samples."""
    note(tensor, REGULAR if samples > 1 else ALONE)


def same(some: Rows, other: Rows) -> bool:
    """Whether two tensors have the same sample at every entry of the axis."""
    if some is other:
        return True
    if some.of is None or other.of is None:
        return some.of is other.of
    return some.of is other.of or torch.equal(some.of, other.of)
