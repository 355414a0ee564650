"""`OldSamples`: batches of old samples without end, in an order that a resumed training finds again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from forgetless.errors import ForgetlessError
from forgetless.model import batches
from forgetless.model.collation import Collate

_AGAIN = (
    "the old samples can be read only once (a generator?), and every step needs some; give a list, a Dataset or a "
    "DataLoader."
)


class OldSamples:
    """Old samples, batch by batch, epoch after epoch.

    What has numbered samples is shuffled in every epoch, by the seed and the epoch's number; several processes take
    turns at its batches. Any other iterable is read as it is, by each process its own.
    """

    def __init__(
        self, data: Any, size: int, collate: Collate | None, seed: int, share: tuple[int, int] = (0, 1)
    ) -> None:
        """Nothing is read yet.

        Args:
            data: as for `forgetless.Distillation`.
            size: samples of a batch.
            collate: a list of samples → a batch.
            seed: of the orders.
            share: this process's number, and how many there are.

        Raises:
            ForgetlessError: data that can be read only once, or that are none.
        """
        if size < 1:
            raise ForgetlessError(f"batch_size must be 1 or more, not {size!r}.")
        if isinstance(data, Iterator):
            raise ForgetlessError(_AGAIN)
        self._data, self._size, self._collate, self._seed, self._share = data, size, collate, seed, share
        self._whole = not isinstance(data, DataLoader) and collate is None and _is_one_batch(data)
        self._numbered = self._whole or _is_numbered(data, collate)
        self._epoch = 0
        self._left: Iterator[Any] | None = None

    def first(self) -> Any:
        """The first batch, which `next` gives as well.

        Raises:
            ForgetlessError: there are no samples.
        """
        found = next(self._read(0), None)
        if found is None:
            raise ForgetlessError("the old samples are none: the data are empty.")
        return found

    def next(self) -> Any:
        """The next batch of this process.

        Raises:
            ForgetlessError: the data cannot begin anew.
        """
        number, processes = self._share if self._numbered else (0, 1)
        taken = [self._following() for _ in range(processes)]
        return taken[number]()

    def seek(self, steps: int) -> None:
        """Go to where `steps` calls of `next` lead to."""
        self._epoch, self._left = 0, None
        for _ in range(steps * (self._share[1] if self._numbered else 1)):
            self._following()

    def _following(self) -> Any:
        """The next batch, not made yet where it is made of numbered samples."""
        for _ in range(2):
            if self._left is None:
                self._left = self._places(self._epoch) if self._numbered else (lambda b=b: b for b in self._read(0))
            found = next(self._left, None)
            if found is not None:
                return found
            self._epoch, self._left = self._epoch + 1, None
        raise ForgetlessError(_AGAIN)

    def _places(self, epoch: int) -> Iterator[Any]:
        count = batches.size(self._data) if self._whole else len(self._data)
        draw = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
        for chosen in torch.split(torch.randperm(count, generator=draw), self._size) if count else ():
            yield lambda chosen=chosen: self._made(chosen)

    def _read(self, epoch: int) -> Iterator[Any]:
        if self._numbered:
            return (make() for make in self._places(epoch))
        return iter(batches.of(self._data, self._size, self._collate))

    def _made(self, chosen: Tensor) -> Any:
        if self._whole:
            samples = batches.size(self._data)
            return batches.mapped(
                self._data, lambda each: _taken(each, chosen) if batches.rowed(each, samples) else each
            )
        some = (
            self._data.select(chosen.tolist()) if hasattr(self._data, "select") else Subset(self._data, chosen.tolist())
        )
        return next(iter(batches.of(some, len(chosen), self._collate)))


def _taken(tensor: Tensor, chosen: Tensor) -> Tensor:
    return tensor[chosen.to(tensor.device)]


def _is_one_batch(data: Any) -> bool:
    found = batches.of(data, 1)
    return isinstance(found, list) and found is not data


def _is_numbered(data: Any, collate: Collate | None) -> bool:
    if (
        isinstance(data, IterableDataset | DataLoader)
        or not hasattr(data, "__getitem__")
        or not hasattr(data, "__len__")
    ):
        return False
    return (
        collate is not None
        or hasattr(data, "with_format")
        or (isinstance(data, Dataset) and not hasattr(data, "__iter__"))
    )
