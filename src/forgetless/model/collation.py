"""From samples to batches: what a `Dataset`, a `datasets.Dataset` or a list of samples holds, some at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from forgetless.errors import ForgetlessError

Collate = Callable[[list[Any]], Any]
TEXTS = (
    "the data are texts, and a model takes tokens; give "
    'collate_fn=lambda texts: tokenizer(texts, padding=True, return_tensors="pt").'
)


class Batched:
    """Samples as batches, anew for every loop.

    Args:
        samples: an iterable, or what has a length and numbered samples.
        size: how many samples make a batch.
        collate: a list of samples → a batch.
    """

    def __init__(self, samples: Any, size: int, collate: Collate) -> None:
        self._samples, self._size, self._collate = samples, size, collate

    def __iter__(self) -> Iterator[Any]:
        samples = self._samples
        each = iter(samples) if hasattr(samples, "__iter__") else (samples[n] for n in range(len(samples)))
        while chosen := list(islice(each, self._size)):
            yield made(self._collate, chosen)


def made(collate: Collate, samples: Any) -> Any:
    """A batch of samples.

    Raises:
        ForgetlessError: they do not make one.
    """
    try:
        return collate(samples)
    except ForgetlessError:
        raise
    except Exception as error:  # whatever a function of the user's raises
        lines = str(error).strip().splitlines() or [type(error).__name__]
        first = samples[0] if isinstance(samples, (list, tuple)) and samples else samples
        kind = type(first).__name__ + (f" of {', '.join(map(repr, first))}" if isinstance(first, Mapping) else "")
        raise ForgetlessError(
            f"collate_fn= does not make a batch of these samples ({kind}): {lines[0][:300].rstrip('.')}."
        ) from error


def collated(samples: list[Any]) -> Any:
    """Samples of a Dataset, each like a batch without its sample axis.

    Raises:
        ForgetlessError: they do not make a batch.
    """
    try:
        return default_collate(samples)
    except (RuntimeError, TypeError, KeyError, AttributeError) as error:
        if len(samples) == 1 and hasattr(samples[0], "edge_index"):  # a graph
            return samples[0]
        lines = str(error).strip().splitlines() or [type(error).__name__]
        way_out = (
            "give the Dataset a transform that makes tensors of its pictures (torchvision.transforms.ToTensor())"
            if "PIL." in lines[0]
            else "give collate_fn=, or batches of one (batch_size=1)"
        )
        raise ForgetlessError(
            f"the samples of the Dataset do not make a batch ({lines[0][:160].rstrip('.')}); {way_out}."
        ) from error


def columns(rows: list[Any]) -> dict[str, Tensor]:
    """Rows of a `datasets.Dataset` as one tensor for each column of numbers; columns of texts are left out.

    Raises:
        ForgetlessError: there are texts alone, another kind of values, or rows of unequal lengths.
    """
    first = rows[0]
    if not isinstance(first, Mapping):
        raise ForgetlessError(f"a row of the Dataset is a {type(first).__name__} and not a dict; give collate_fn=.")
    names = [name for name, value in first.items() if not _text(value)]
    if not names:
        listed = ", ".join(map(repr, first))
        raise ForgetlessError(
            f"the Dataset has texts alone ({listed}), and a model takes tokens; give collate_fn=lambda rows: "
            f'tokenizer([row[{next(iter(first))!r}] for row in rows], padding=True, return_tensors="pt").'
        )
    return {name: _stacked(name, [row[name] for row in rows]) for name in names}


def _text(value: Any) -> bool:
    while isinstance(value, (list, tuple)) and value:
        value = value[0]
    return isinstance(value, str)


def _stacked(name: str, values: list[Any]) -> Tensor:
    try:
        found = [torch.as_tensor(value) for value in values]
    except (TypeError, ValueError, RuntimeError) as error:
        raise ForgetlessError(
            f"column {name!r} of the Dataset holds no numbers of one size a row ({type(values[0]).__name__}); give "
            "collate_fn=, which makes a batch of a list of rows, or leave the column out (remove_columns)."
        ) from error
    if len({tensor.shape for tensor in found}) == 1:
        return torch.stack(found)
    if name == "seq_lengths":
        raise ForgetlessError(
            "the rows of the Dataset are packed, with unequal numbers of documents; give trl's "
            "collate_fn=DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True), or batch_size=1."
        )
    raise ForgetlessError(
        f"the rows of column {name!r} have unequal lengths; give collate_fn=, such as transformers' "
        "DataCollatorWithPadding(tokenizer), or batches of one (batch_size=1)."
    )
