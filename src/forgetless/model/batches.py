"""What data is: batches from whatever a person has, and one sample of a batch.

A tensor, a tuple (inputs first) or a dict (passed to the model as keywords) is *one batch*; a `Dataset` is batched
here; any other iterable yields batches. A sample is one row of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from forgetless.errors import ForgetlessError

_LABELS = ("labels", "label", "label_ids")


def inputs(batch: Any) -> Any:
    """What of a batch goes into the model: a tensor, or a dict of keywords without its labels."""
    if isinstance(batch, (tuple, list)) and batch:
        batch = batch[0]
    if isinstance(batch, Mapping):
        return {key: value for key, value in batch.items() if key not in _LABELS}
    if isinstance(batch, Tensor):
        return batch
    raise ForgetlessError(
        f"a batch must be a tensor, a tuple with the inputs first or a dict of tensors, not {type(batch).__name__}."
    )


def labels(batch: Any) -> Tensor:
    """What of a batch is its labels: the second of a tuple, or "labels" of a dict."""
    if isinstance(batch, Mapping):
        found = next((batch[key] for key in _LABELS if key in batch), None)
    else:
        found = batch[1] if isinstance(batch, (tuple, list)) and len(batch) > 1 else None
    if not isinstance(found, Tensor):
        raise ForgetlessError("a batch has no labels: they are the second of a tuple, or 'labels' of a dict.")
    return found


def size(batch: Any) -> int:
    """How many samples the batch holds: the first axis of its first tensor."""
    for tensor in tensors(inputs(batch)):
        if tensor.dim() > 0:
            return tensor.shape[0]
    raise ForgetlessError("a batch holds no tensor with a sample axis, so its samples cannot be counted.")


def rows(batch: Any, start: int, stop: int) -> Any:
    """Samples `start … stop` of a batch, in the batch's own form; what has no sample axis is passed whole."""
    samples = size(batch)

    def piece(tensor: Tensor) -> Tensor:
        return tensor[start:stop] if tensor.dim() > 0 and tensor.shape[0] == samples else tensor

    return mapped(batch, piece)


def mapped(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """`value` with `function` applied to every tensor inside tuples, lists and mappings."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple):
        return tuple(mapped(item, function) for item in value)
    if isinstance(value, list):
        return [mapped(item, function) for item in value]
    if isinstance(value, Mapping):
        return {key: mapped(item, function) for key, item in value.items()}
    return value


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors inside tuples, lists and mappings, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors(item)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors(item)


def form(batch: Any) -> Any:
    """What batches of one kind have in common: their containers, keys, dtypes and numbers of axes; not their sizes."""
    if isinstance(batch, Tensor):
        return batch.dtype, batch.dim()
    if isinstance(batch, Mapping):
        return tuple((key, form(value)) for key, value in batch.items())
    return tuple(map(form, batch)) if isinstance(batch, (tuple, list)) else type(batch)


def of(data: Any, batch_size: int | None) -> Iterable[Any]:
    """The batches of `data`.

    Args:
        data: a tensor, tuple or dict (one batch), a `Dataset`, or an iterable of batches.
        batch_size: how many samples of a `Dataset` make a batch.

    Raises:
        ForgetlessError: `data` is none of these.
    """
    if isinstance(data, (Tensor, tuple, Mapping)):
        return [data]
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset) and not hasattr(data, "__iter__"):
        return DataLoader(data, batch_size=batch_size or 64)
    if isinstance(data, IterableDataset):
        return DataLoader(data, batch_size=batch_size or 64)
    if isinstance(data, Iterable):
        return data
    raise ForgetlessError(
        f"data must be a tensor, a tuple, a dict, a Dataset or an iterable of batches, not {type(data).__name__}."
    )


def refuse_non_finite(batch: Any, which: str) -> None:
    """Refuse a batch whose float inputs hold NaN or Inf, naming the sample.

    Raises:
        ForgetlessError: as said.
    """
    for tensor in tensors(inputs(batch)):
        if tensor.is_floating_point() and not finite(tensor):
            bad = (~torch.isfinite(tensor)).reshape(tensor.shape[0], -1).any(1).nonzero()[0].item()
            raise ForgetlessError(f"the inputs hold NaN or Inf: {which}, sample {bad}; clean the data first.")


def finite(tensor: Tensor) -> bool:
    """Whether no element is NaN or Inf, in one pass over the memory and without a copy of it."""
    wide = torch.float32 if tensor.element_size() < 4 else None
    # One such element makes the sum so too. The sum of finite ones may overflow: then the elements decide.
    return bool(torch.isfinite(tensor.sum(dtype=wide))) or bool(torch.isfinite(tensor).all())
