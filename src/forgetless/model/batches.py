"""What data is: batches from whatever a person has, and one sample of a batch.

A tensor, a tuple (inputs first) or a dict (passed to the model as keywords) is *one batch*; a `Dataset` is batched
here; any other iterable yields batches. A sample is one row of the batch, or an entry of a list of pictures.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import DataLoader, Dataset, IterableDataset

from forgetless.errors import ForgetlessError
from forgetless.model.collation import TEXTS, Batched, Collate, collated, columns

LABELS = ("labels", "label", "label_ids")
_ROWS = ("input_ids", "inputs_embeds")  # which have a row per sample, also where images are cut into patches


def inputs(batch: Any) -> Any:
    """What of a batch goes into the model: a tensor, a dict of keywords without its labels, or the object itself.

    Raises:
        ForgetlessError: there is nothing that a model could take, or samples without a common axis.
    """
    given = batch[0] if isinstance(batch, (tuple, list)) and not isinstance(batch, PackedSequence) and batch else batch
    if isinstance(given, Mapping):
        return {key: value for key, value in given.items() if key not in LABELS}
    if isinstance(given, Tensor):
        return given
    if isinstance(given, PackedSequence):
        raise ForgetlessError(
            "a PackedSequence has no sample axis; give the padded sequences and their lengths, and pack them in "
            "forward= (a function that takes the model and the batch)."
        )
    if isinstance(given, (list, tuple)) and given and all(isinstance(each, Tensor) for each in given):
        if len(given) == 1:
            return given
        raise ForgetlessError(
            f"the inputs are a list of {len(given)} tensors without a common sample axis; stack those of equal size, "
            "or give batches of one (a DataLoader with batch_size=1); for lists of pictures and of their targets, "
            "both must be equally long."
        )
    if _parts(given) is not None:
        return given
    if isinstance(given, str) or (isinstance(given, (list, tuple)) and given and isinstance(given[0], str)):
        raise ForgetlessError(TEXTS)
    raise ForgetlessError(
        f"a batch must be a tensor, a tuple with the inputs first or a dict of tensors, not {type(given).__name__}; "
        "collate_fn= makes batches of samples, and what else a model takes comes through forward=."
    )


def labels(batch: Any) -> Tensor:
    """What of a batch is its labels: the second of a tuple, or "labels" of a dict."""
    if isinstance(batch, Mapping):
        found = next((batch[key] for key in LABELS if key in batch), None)
    elif isinstance(batch, (tuple, list)):
        found = batch[1] if len(batch) > 1 else None
    else:
        found = next((getattr(batch, key) for key in (*LABELS, "y") if hasattr(batch, key)), None)
    if not isinstance(found, Tensor):
        raise ForgetlessError("a batch has no labels: they are the second of a tuple, or 'labels' of a dict.")
    return found


def size(batch: Any) -> int:
    """How many samples the batch holds: the first axis of its `input_ids`, or of its first tensor.

    Raises:
        ForgetlessError: there is no such tensor, or the batch holds several graphs.
    """
    if isinstance(batch, Mapping) and "samples" in batch and not isinstance(batch["samples"], Tensor):
        return size(batch["samples"])
    given = inputs(batch)
    if isinstance(given, (list, tuple)):
        return len(given)
    if isinstance(given, Mapping):
        ids = next((given[key] for key in _ROWS if isinstance(given.get(key), Tensor) and given[key].dim() > 0), None)
        if ids is not None:
            return int(ids.shape[0])
    elif not isinstance(given, Tensor) and hasattr(given, "edge_index"):
        return _graphs(given)
    for tensor in tensors(given):
        if tensor.dim() > 0:
            return tensor.shape[0]
    raise ForgetlessError(
        "a batch holds no tensor with a sample axis, so its samples cannot be counted; if the data are single samples, "
        "collate_fn= makes batches of them."
    )


def _graphs(batch: Any) -> int:
    number = getattr(batch, "num_graphs", None)
    if number is None:
        nodes = getattr(batch, "batch", None)
        number = int(nodes.max()) + 1 if isinstance(nodes, Tensor) and nodes.numel() else 1
    if number > 1:
        raise ForgetlessError(
            f"a batch of {number} graphs has no sample axis; give batches of one graph (a DataLoader with "
            "batch_size=1)."
        )
    return 1


def rows(batch: Any, start: int, stop: int) -> Any:
    """Samples `start … stop` of a batch, in the batch's own form; what has no sample axis is passed whole."""
    samples = size(batch)
    if (start, stop) == (0, samples):
        return batch

    def piece(tensor: Tensor) -> Tensor:
        return tensor[start:stop] if rowed(tensor, samples) else tensor

    return mapped(batch, piece)


def listed(batch: Any) -> list[Any] | None:
    """The samples of `(pictures, targets)`, lists of one entry a sample as detectors take them, as batches of one.

    None for any other batch: what stands beside the pictures must be as many.
    """
    if type(batch) not in (tuple, list) or not batch or type(batch[0]) not in (tuple, list) or len(batch[0]) < 2:
        return None
    number = len(batch[0])
    beside = [each for each in batch[1:] if each is not None]
    if not all(isinstance(each, Tensor) for each in batch[0]) or not all(
        isinstance(each, (tuple, list)) and len(each) == number for each in beside
    ):
        return None
    return [type(batch)(None if part is None else part[n : n + 1] for part in batch) for n in range(number)]


_WHOLE = "_forgetless_whole"  # of a tensor that belongs to the batch as a whole, however long it is


def rowed(tensor: Tensor, samples: int) -> bool:
    """Whether a tensor of a batch of so many samples has a row for each."""
    return tensor.dim() > 0 and tensor.shape[0] == samples and not getattr(tensor, _WHOLE, False)


def settled(batch: Any) -> tuple[bool, ...]:
    """Whether each tensor of a batch has a row for each sample: from now on, in whatever part of the batch it is.

    A table of T rows stays one in a part of T samples.
    """
    samples = size(batch)
    found = [(tensor, rowed(tensor, samples)) for tensor in tensors(batch)]
    for tensor, rows in found:
        if not rows:
            setattr(tensor, _WHOLE, True)
    return tuple(rows for _, rows in found)


def moved(batch: Any, device: torch.device) -> Any:
    """The batch on a device, without a graph; what was made in inference mode as a copy that autograd can save."""

    def piece(tensor: Tensor) -> Tensor:
        there = tensor.detach().to(device, non_blocking=True)
        return there.clone() if there.is_inference() else there

    return mapped(batch, piece)


def mapped(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """`value` with `function` applied to every tensor inside containers, which keep their type.

    Containers are tuples (named ones too), lists, mappings, dataclasses, and objects with a method `to`.
    """
    if isinstance(value, Tensor):
        found = function(value)
        if getattr(value, _WHOLE, False) and isinstance(found, Tensor) and found is not value:
            setattr(found, _WHOLE, True)
        return found
    parts = _parts(value)
    if parts is None:
        return value
    changed = {key: mapped(item, function) for key, item in parts.items()}
    if all(changed[key] is item for key, item in parts.items()):
        return value
    return _rebuilt(value, changed)


def _rebuilt(value: Any, parts: dict[Any, Any]) -> Any:
    kind = type(value)
    if kind in (tuple, list):
        return kind(parts.values())
    if kind is dict:
        return parts
    if isinstance(value, PackedSequence):
        return value._replace(**parts)
    if isinstance(value, tuple):
        return value._make(parts.values()) if hasattr(value, "_make") else _made(kind, tuple(parts.values()))
    if isinstance(value, list):
        return _made(kind, list(parts.values()))
    if isinstance(value, Mapping) and not isinstance(value, MutableMapping):
        return _made(kind, parts)
    found = copy.copy(value)
    for key, part in parts.items():
        if isinstance(value, Mapping):
            found[key] = part
        else:
            object.__setattr__(found, key, part) if key in vars(found) else setattr(found, key, part)
    return found


def _made(kind: Any, parts: Any) -> Any:
    """A container of this kind, or a plain one where the kind cannot be made from its parts alone."""
    try:
        return kind(parts)
    except Exception:  # whatever its constructor asks for
        return parts


def _parts(value: Any) -> dict[Any, Any] | None:
    """What a container holds, by key, index or attribute; None if it is none."""
    if isinstance(value, PackedSequence):
        return {"data": value.data}
    if isinstance(value, (tuple, list)):
        return dict(enumerate(value))
    if isinstance(value, Mapping):
        return dict(value.items())
    if isinstance(value, (nn.Module, type, torch.dtype, torch.device)):
        return None
    if dataclasses.is_dataclass(value):
        return {
            field.name: getattr(value, field.name) for field in dataclasses.fields(value) if hasattr(value, field.name)
        }
    if callable(getattr(value, "to", None)):
        if callable(getattr(value, "keys", None)):  # a graph's attributes are not in its __dict__
            return _attributes(value, list(value.keys()))
        return dict(vars(value)) if hasattr(value, "__dict__") else None
    return None


def _attributes(value: Any, names: Iterable[Any]) -> dict[Any, Any]:
    return {name: getattr(value, name) for name in names if isinstance(name, str) and hasattr(value, name)}


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors inside containers, in order."""
    if isinstance(value, Tensor):
        yield value
        return
    kind = type(value)
    if kind in _PLAIN:
        return
    # Asked about the arguments of every operation of a pass: the usual containers without a dict in between.
    items = value if kind in (tuple, list) else value.values() if kind is dict else (_parts(value) or {}).values()
    for item in items:
        if isinstance(item, Tensor):
            yield item
        elif type(item) not in _PLAIN:
            yield from tensors(item)


_PLAIN = frozenset({type(None), bool, int, float, complex, str, bytes, slice, torch.dtype, torch.device, torch.Size})


def form(batch: Any) -> Any:
    """What batches of one kind have in common: their containers, keys, dtypes and numbers of axes; not their sizes."""
    if isinstance(batch, Tensor):
        return batch.dtype, batch.dim()
    parts = _parts(batch)
    return type(batch) if parts is None else tuple((key, form(item)) for key, item in parts.items())


def of(data: Any, batch_size: int | None, collate_fn: Collate | None = None) -> Iterable[Any]:
    """The batches of `data`.

    Args:
        data: a tensor, tuple, dict, dataclass or other object that holds tensors (one batch), a `Dataset`, a
            `datasets.Dataset` with columns of numbers, or an iterable of batches; with `collate_fn`, of samples.
        batch_size: how many samples make a batch, where `data` has samples.
        collate_fn: a list of samples → a batch.

    Raises:
        ForgetlessError: `data` is none of these, or its samples do not make a batch.
    """
    if hasattr(data, "with_format") and isinstance(data, Mapping):
        raise ForgetlessError(
            f"a datasets.DatasetDict holds several sets; give one of them: {', '.join(map(repr, data))}."
        )
    batched = isinstance(data, (Tensor, tuple, Mapping, DataLoader))
    if collate_fn is not None:
        if batched or not (isinstance(data, Iterable) or hasattr(data, "__getitem__")):
            raise ForgetlessError(
                f"collate_fn= makes batches of samples (a list or a Dataset), and data is a {type(data).__name__}; "
                "leave out collate_fn=."
            )
        return Batched(data, batch_size or 64, collate_fn)
    if batched:
        return data if isinstance(data, DataLoader) else [data]
    if hasattr(data, "with_format") and hasattr(data, "column_names"):
        return Batched(data, batch_size or 64, columns)
    if isinstance(data, IterableDataset) or (isinstance(data, Dataset) and not hasattr(data, "__iter__")):
        return DataLoader(data, batch_size=batch_size or 64, collate_fn=collated)
    if not isinstance(data, Iterable) or (_parts(data) is not None and not isinstance(data, (list, Dataset))):
        if _parts(data) is not None:
            return [data]
        raise ForgetlessError(
            f"data must be a tensor, a tuple, a dict, a Dataset or an iterable of batches, not {type(data).__name__}."
        )
    return data


def left_out(batch: Any) -> str | None:
    """Which further members of a tuple look like masks or inputs, though only the first goes into the model."""
    if not isinstance(batch, (tuple, list)) or len(batch) < 2 or not isinstance(batch[0], Tensor):
        return None
    first, named = batch[0], getattr(batch, "_fields", None)
    for k, member in enumerate(batch[1:], 1):
        if not isinstance(member, Tensor) or member.dim() < 2 or member.shape[:1] != first.shape[:1]:
            continue
        mask = member.shape[:2] == first.shape[:2] and (
            member.dtype == torch.bool or bool(((member == 0) | (member == 1)).all())
        )
        like = member.shape == first.shape and (member.is_floating_point() or k < len(batch) - 1)
        if mask or like:
            which = repr(named[k]) if named else f"number {k + 1}"
            return (
                f"only the first member of a tuple goes into the model; {which} of {len(batch)}, of shape "
                f"{tuple(member.shape)}, looks like {'a mask' if mask else 'an input'} and is not used; give a dict of "
                "the model's keywords, or forward=."
            )
    return None


def refuse_non_finite(batch: Any, which: str) -> None:
    """Refuse a batch whose float inputs hold NaN or Inf, naming the sample.

    Raises:
        ForgetlessError: as said.
    """
    samples = size(batch)
    for tensor in tensors(inputs(batch)):
        if tensor.is_floating_point() and not finite(tensor):
            rowed = tensor.dim() > 0 and tensor.shape[0] == samples
            bad = (~torch.isfinite(tensor)).reshape(samples, -1).any(1).nonzero()[0].item() if rowed else None
            where = which if bad is None else f"{which}, sample {bad}"
            raise ForgetlessError(f"the inputs hold NaN or Inf: {where}; clean the data first.")


def finite(tensor: Tensor) -> bool:
    """Whether no element is NaN or Inf, in one pass over the memory and without a copy of it."""
    wide = torch.float32 if tensor.element_size() < 4 else None
    # One such element makes the sum so too. The sum of finite ones may overflow: then the elements decide.
    return bool(torch.isfinite(tensor.sum(dtype=wide))) or bool(torch.isfinite(tensor).all())
