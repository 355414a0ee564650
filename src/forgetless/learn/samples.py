"""A task's samples: batches by number from tensors and map-style datasets, or in a stream's own order."""

from __future__ import annotations

import abc
import hashlib
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset, default_collate

from forgetless.errors import ForgetlessError
from forgetless.learn.rows import Rows
from forgetless.learn.seeding import derive, permutation
from forgetless.model import batches
from forgetless.model.parameters import fingerprint

#: A tensor, a tuple of tensors (inputs first) or a dict of tensors; row n of each belongs to sample n.
Batch = Any


class Samples(abc.ABC):
    """What the loop and the methods read a part of a task through. Nothing is read before it is asked for."""

    @abc.abstractmethod
    def steps(self, batch_size: int) -> int | None:
        """How many batches an epoch has; None where only reading it tells."""

    @abc.abstractmethod
    def epoch(self, batch_size: int, seed: int, skip: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, of at most `batch_size` samples, without the first `skip`.

        Args:
            batch_size: the most samples in a batch, where we make the batches.
            seed: decides the order, and torch's CPU generator while a dataset or a stream is read.
            skip: how many batches were used before the run was interrupted.
        """

    @abc.abstractmethod
    def batches(self, batch_size: int) -> Iterator[Batch]:
        """All samples once, in their own order."""

    @abc.abstractmethod
    def take(self, chosen: Tensor) -> Batch:
        """The samples of the numbers `chosen`, int64 `[n]`, as one batch.

        Raises:
            ForgetlessError: a stream has no numbers.
        """

    @abc.abstractmethod
    def inputs(self) -> Any:
        """What an estimator such as `forgetless.mas` takes: the inputs without their targets."""

    @abc.abstractmethod
    def fingerprint(self) -> str:
        """A short text that differs, as far as can be told cheaply, where the samples differ."""

    @abc.abstractmethod
    def __len__(self) -> int:
        """How many samples there are.

        Raises:
            ForgetlessError: a stream does not tell.
        """


class Numbered(Samples):
    """Samples that are read by number. Subclasses say how."""

    def steps(self, batch_size: int) -> int:
        """`⌈N / batch_size⌉`."""
        return math.ceil(len(self) / batch_size)

    def epoch(self, batch_size: int, seed: int, skip: int = 0) -> Iterator[Batch]:
        """A permutation that `seed` decides, cut into batches of equal size (±1), so that none is tiny."""
        parts = permutation(len(self), seed).tensor_split(self.steps(batch_size))
        for number, chosen in enumerate(parts[skip:], skip):
            yield self._read(chosen, derive(seed, number))

    def _read(self, chosen: Tensor, seed: int) -> Batch:
        torch.default_generator.manual_seed(seed)  # for datasets that augment at random
        return self.take(chosen)


class TensorSamples(Numbered):
    """Tensors with a row for each sample, in memory or memory-mapped; `chosen` selects some of the rows."""

    def __init__(self, tensors: Batch, chosen: Tensor | None = None) -> None:
        sizes = {len(each) if each.dim() else 0 for each in batches.tensors(tensors)}
        if len(sizes) != 1:
            raise ForgetlessError(f"the tensors of a task need one row for each sample, not {sorted(sizes)} rows.")
        self._tensors, self._chosen = tensors, chosen
        self._size = sizes.pop() if chosen is None else len(chosen)

    def __len__(self) -> int:
        """The number of rows."""
        return self._size

    def take(self, chosen: Tensor) -> Batch:
        """Those rows, copied."""
        numbers = chosen if self._chosen is None else self._chosen[chosen]
        return batches.mapped(self._tensors, lambda tensor: tensor[numbers])

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Slices of the tensors, not copied where all rows are used."""
        for start in range(0, len(self), batch_size):
            stop = min(start + batch_size, len(self))
            if self._chosen is None:
                yield batches.rows(self._tensors, start, stop)
            else:
                yield self.take(torch.arange(start, stop))

    def inputs(self) -> Any:
        """The input tensors themselves, or `Rows` of them where only some are used."""
        found = batches.inputs(self._tensors)
        if self._chosen is None:
            return found
        return batches.mapped(
            found,
            lambda tensor: Rows(
                lambda numbers: tensor[cast(Tensor, self._chosen)[numbers]],
                torch.Size([len(self), *tensor.shape[1:]]),
                tensor.dtype,
            ),
        )

    def fingerprint(self) -> str:
        """Of every tensor, of at most 1,024 of its elements."""
        own = "/".join(map(fingerprint, batches.tensors(self._tensors)))
        return own if self._chosen is None else f"{own}[{fingerprint(self._chosen)}]"

    def _read(self, chosen: Tensor, seed: int) -> Batch:
        return self.take(chosen)  # draws no random numbers


class DatasetSamples(Numbered):
    """A map-style `Dataset`: samples are read one by one, or by `__getitems__`, and collated."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        """`len(dataset)`."""
        return len(self._dataset)

    def take(self, chosen: Tensor) -> Batch:
        """Those samples, stacked by torch's `default_collate`; tuples stay tuples."""
        numbers = chosen.tolist()
        several = getattr(self._dataset, "__getitems__", None)
        found = [self._dataset[n] for n in numbers] if several is None else several(numbers)
        batch = default_collate(found)
        return tuple(batch) if isinstance(batch, list) else batch

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Read in the dataset's order."""
        for start in range(0, len(self), batch_size):
            yield self.take(torch.arange(start, min(start + batch_size, len(self))))

    def inputs(self) -> Any:
        """`Rows`, which are read piece by piece while an estimator measures."""
        first = batches.inputs(self.take(torch.zeros(1, dtype=torch.int64)))

        def rows(like: Tensor, key: Any) -> Rows:
            def read(numbers: Tensor) -> Tensor:
                if not len(numbers):
                    return like[:0]
                found = batches.inputs(self.take(numbers))
                return cast(Tensor, found if key is None else found[key])

            return Rows(read, torch.Size([len(self), *like.shape[1:]]), like.dtype)

        return (
            {key: rows(each, key) for key, each in first.items()} if isinstance(first, Mapping) else rows(first, None)
        )

    def fingerprint(self) -> str:
        """Of the number of samples, and of the first, the middle and the last one."""
        picked = torch.tensor(sorted({0, len(self) // 2, len(self) - 1}))
        with torch.random.fork_rng([]):  # a dataset that augments at random gives the same samples every time
            found = "/".join(map(fingerprint, batches.tensors(self._read(picked, 0))))
        return hashlib.sha256(f"{len(self)} {found}".encode()).hexdigest()[:16]


class StreamedSamples(Samples):
    """An iterable of batches, or an `IterableDataset` that is batched here: the order is the stream's.

    Every epoch iterates over it anew. A run that resumes reads and drops the batches that it used before, so the stream
    must give the same ones again; torch's CPU generator is seeded before each, other generators are not.
    """

    def __init__(self, data: Iterable[Any]) -> None:
        self._data = data

    def __len__(self) -> int:
        """Not known."""
        raise ForgetlessError("a stream does not tell how many samples it has; give tensors or a map-style Dataset.")

    def steps(self, batch_size: int) -> int | None:
        """`len` of the iterable, where it has one."""
        found = batches.of(self._data, batch_size)
        try:
            return len(found) if isinstance(found, Sized) else None
        except TypeError:  # a DataLoader of a dataset without a length
            return None

    def epoch(self, batch_size: int, seed: int, skip: int = 0) -> Iterator[Batch]:
        """The stream's batches in the stream's order."""
        reader: Iterator[Any] | None = None
        for number in itertools.count():
            torch.default_generator.manual_seed(derive(seed, number))
            reader = iter(batches.of(self._data, batch_size)) if reader is None else reader
            batch = next(reader, None)
            if batch is None:
                return
            if number >= skip:
                yield tuple(batch) if isinstance(batch, list) else batch

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """The stream's batches in the stream's order."""
        return self.epoch(batch_size, 0)

    def take(self, chosen: Tensor) -> Batch:
        """Not possible."""
        raise ForgetlessError("a stream cannot be read by number; give tensors or a map-style Dataset.")

    def inputs(self) -> Any:
        """The inputs of the stream's batches, one batch after the other; to be iterated over once."""
        return (batches.inputs(batch) for batch in batches.of(self._data, None))

    def fingerprint(self) -> str:
        """The type of the stream: its content is not read."""
        return f"a stream, {type(self._data).__name__}"


def samples_of(data: Any) -> Samples:
    """How `data` is read.

    Args:
        data: a tensor, a tuple of tensors (inputs first) or a dict of tensors, with a row for each sample; a map-style
            `Dataset` of samples; or an iterable of batches or an `IterableDataset`, whose order is kept.

    Raises:
        ForgetlessError: it is none of these, or its tensors differ in their number of rows.
    """
    if isinstance(data, (Tensor, tuple, Mapping)):
        return TensorSamples(data)
    if isinstance(data, TensorDataset):
        return TensorSamples(data.tensors)
    if isinstance(data, Subset):
        whole, chosen = samples_of(data.dataset), torch.as_tensor(data.indices, dtype=torch.int64)
        if isinstance(whole, TensorSamples):
            return TensorSamples(whole._tensors, chosen if whole._chosen is None else whole._chosen[chosen])
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        return DatasetSamples(data)
    if isinstance(data, Iterable):
        return StreamedSamples(data)
    raise ForgetlessError(
        f"a task's samples are tensors, a Dataset or an iterable of batches, not {type(data).__name__}."
    )
