"""`OldSamples`: batches of old samples without end, in an order that a resumed training finds again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

from forgetless.errors import ForgetlessError
from forgetless.model import batches
from forgetless.model.collation import Collate
from forgetless.model.parameters import fingerprint

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
            ForgetlessError: data that can be read only once, a size that is none, or a seed that is none.
        """
        for name, number, least in (("batch_size", size, 1), ("seed", seed, 0)):
            if not isinstance(number, int) or isinstance(number, bool) or number < least:
                raise ForgetlessError(f"{name} must be an integer of {least} or more, not {number!r}.")
        if isinstance(data, Iterator):
            raise ForgetlessError(_AGAIN)
        single = batches.listed(data)  # whose samples have no rows
        self._data: Any = data if single is None else single
        self._size, self._collate, self._seed = size, collate, seed
        self._whole = collate is None and _is_one_batch(self._data)
        self._numbered = self._whole or _is_numbered(self._data, collate)
        self._number, self._processes = share if self._numbered else (0, 1)
        self._epoch, self._used = 0, 0
        self._left: Iterator[Any] | None = None

    def first(self) -> Any:
        """The first batch of epoch 0; `next` goes on from where it is.

        Raises:
            ForgetlessError: there are no samples.
        """
        with torch.random.fork_rng([]):  # a loader draws its seed
            found = next(self._read(0), None)
        if found is None:
            raise ForgetlessError("the old samples are none: the data are empty.")
        return self._made(found)

    def noted(self, first: Any) -> Tensor | None:
        """Which samples they are: their count and a hash of the first batch, `[2]`.

        Args:
            first: what `first` gave.

        Returns:
            None for samples without numbers. The hash is 0 where reading that batch again gives another.
        """
        if not self._numbered:
            return None
        found = _hashed(first)
        return torch.tensor([self._count(), found if _hashed(self.first()) == found else 0])

    def next(self) -> Any:
        """The next batch of this process.

        Raises:
            ForgetlessError: the data cannot begin anew.
        """
        taken = [self._following() for _ in range(self._processes)]
        self._used += 1
        return self._made(taken[self._number])

    def seek(self, steps: int) -> None:
        """Go to where `steps` calls of `next` lead to."""
        self._epoch, self._left, self._used = 0, None, steps
        for _ in range(steps * self._processes):
            self._following()

    def _following(self) -> Any:
        """The next batch; of numbered samples its numbers."""
        with torch.random.fork_rng([]):
            for _ in range(2):
                if self._left is None:
                    self._left = self._read(self._epoch)
                if (found := next(self._left, None)) is not None:
                    return found
                self._epoch, self._left = self._epoch + 1, None
        raise ForgetlessError(_AGAIN)

    def _read(self, epoch: int) -> Iterator[Any]:
        """An epoch's batches; of numbered samples their numbers."""
        if not self._numbered:
            return iter(batches.of(self._data, self._size, self._collate))
        count = self._count()
        draw = torch.Generator().manual_seed((self._seed * 1_000_003 + epoch) % 2**63)
        return iter(torch.split(torch.randperm(count, generator=draw), self._size) if count else ())

    def _count(self) -> int:
        return batches.size(self._data) if self._whole else len(self._data)

    def _made(self, found: Any) -> Any:
        """The batch itself; what making it draws (an augmentation) depends on the seed and the batch alone."""
        with torch.random.fork_rng([]):
            batch = self._used * self._processes + self._number
            torch.default_generator.manual_seed((self._seed * 1_000_003 + batch) % 2**63)
            return self._batch(found)

    def _batch(self, found: Any) -> Any:
        if not self._numbered:
            return found
        if self._whole:
            samples = batches.size(self._data)
            return batches.mapped(
                self._data, lambda each: each[found.to(each.device)] if batches.rowed(each, samples) else each
            )
        numbers = found.tolist()
        if max(numbers) >= len(self._data):
            raise ForgetlessError(
                f"the old samples have become fewer, {len(self._data)}, in the middle of an epoch; let their number be."
            )
        some = self._data.select(numbers) if hasattr(self._data, "select") else Subset(self._data, numbers)
        return next(iter(batches.of(some, len(numbers), self._collate)))


def _hashed(batch: Any) -> int:
    """Of the tensors in it, 1 or more."""
    found: list[str] = []

    def note(tensor: Tensor) -> Tensor:
        strided = tensor.layout is torch.strided
        found.append(f"{tuple(tensor.shape)} {fingerprint(tensor) if strided else tensor.layout}")
        return tensor

    batches.mapped(batch, note)
    return 1 + int.from_bytes(hashlib.sha256(repr(found).encode()).digest()[:7], "big")


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
