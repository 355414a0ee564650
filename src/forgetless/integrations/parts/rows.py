"""Samples as people have them (texts, chats, rows of a dataset), in batches that a trainer's data collator makes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from forgetless.errors import ForgetlessError, brief, quoted
from forgetless.model import batches

_FIELDS = ("text", "messages")  # of a row, in this order: what becomes tokens
_TEXTS = ("input_ids", *_FIELDS, "prompt", "completion", "chosen")  # where a row's tokens come from


def opened(data: Any) -> tuple[Any, bool]:
    """The data, and whether they are samples; of an iterator, such as a generator of texts, the first item tells.

    Raises:
        ForgetlessError: a `datasets.DatasetDict`, which holds several sets.
    """
    if isinstance(data, Mapping) and hasattr(data, "with_format"):
        raise ForgetlessError(
            "the old data are a datasets.DatasetDict, which holds several sets; give one of them: "
            f"{', '.join(map(quoted, data))}."
        )
    if not isinstance(data, Iterator):
        return data, are_rows(data)
    first = list(islice(data, 1))
    return chain(first, data), are_rows(first)


def are_rows(data: Any) -> bool:
    """Whether `data` holds samples, which are yet to be collated; anything else is batches, for `forgetless.mas`.

    A list of mappings of tensors that agree in their first axis, one of them with a second, is a list of batches.
    """
    if isinstance(data, list):
        return bool(data) and not _is_batch(data[0])
    return isinstance(data, Dataset) or (hasattr(data, "column_names") and hasattr(data, "with_format"))


def _is_batch(item: Any) -> bool:
    if not isinstance(item, Mapping):
        return isinstance(item, Tensor | tuple)
    values = list(item.values())
    if not values or not all(isinstance(value, Tensor) and value.dim() for value in values):
        return False
    return len({len(value) for value in values}) == 1 and any(value.dim() > 1 for value in values)


@dataclass(frozen=True)
class Collate:
    """A trainer's data collator for rows of any kind.

    Attributes:
        collator: rows, as the trainer has them, → a batch.
        tokenizer: makes tokens of a text, or of a chat; None if there is none.
        max_length: tokens that are kept of a text; None for all.
        columns: what the collator is given of a row; None for everything.
        as_given: the collator takes rows as they are, texts too.
    """

    collator: Callable[[list[Any]], Any]
    tokenizer: Any = None
    max_length: int | None = None
    columns: Collection[str] | None = None
    as_given: bool = False

    def __call__(self, rows: list[Any]) -> list[Any]:
        """One batch of all rows, or, from a collator that packs samples into a row, one of each.

        Texts without a token are left out.

        Raises:
            ForgetlessError: texts without a tokenizer, or rows that the collator refuses.
        """
        if not (features := self._features(rows)):
            return []
        batch = self._collated(features, rows[0])
        if batches.size(batch) == len(features):
            return [batch]
        return [self._collated([feature], rows[0]) for feature in features]

    def together(self, rows: list[Any]) -> Any:
        """One batch of all rows, as the collator makes it in training, also where it packs them into one row.

        Raises:
            ForgetlessError: those of a call; texts that are all without a token.
        """
        if not (features := self._features(rows)):
            raise ForgetlessError(f"{len(rows)} texts of the old data have no token, a whole batch; leave them out.")
        return self._collated(features, rows[0])

    def is_empty(self, row: Any) -> bool:
        """Whether a row is a text without a token; a text that is not blank is taken to have one."""
        text = row if self.as_given or not isinstance(row, Mapping) or "input_ids" in row else _written(row)
        if isinstance(text, str) and text.strip():
            return False
        return isinstance(text, str | Mapping) and not self._features([row])

    def _features(self, rows: list[Any]) -> list[Any]:
        features = rows if self.as_given else [self._feature(row) for row in rows]
        return [each for each in features if not _is_empty(each)]

    def _collated(self, features: list[Any], row: Any) -> Any:
        try:
            return self.collator([dict(each) if isinstance(each, Mapping) else each for each in features])
        except ForgetlessError:
            raise
        except Exception as error:
            name = getattr(self.collator, "__name__", type(self.collator).__name__)
            raise ForgetlessError(
                f"the data collator ({name}) refuses the old data: {brief(error)}; {_described(features[0], row)}; "
                "give rows like those of the train set (texts in a field 'text'), batches, or collate_fn=."
            ) from error

    def _feature(self, row: Any) -> Any:
        if isinstance(row, Mapping) and "input_ids" not in row:
            row = _written(row)
        if isinstance(row, str) or (isinstance(row, list) and row and isinstance(row[0], Mapping)):
            row = self._tokens(row)
        if self.columns is not None and isinstance(row, Mapping):
            row = {key: value for key, value in row.items() if key in self.columns}
        return row

    def _tokens(self, text: Any) -> Mapping[str, Any]:
        if self.tokenizer is None:
            raise ForgetlessError(
                "the old data are texts, and the trainer has no tokenizer; give it one (processing_class=)."
            )
        cut = {"truncation": True, "max_length": self.max_length} if self.max_length else {}
        if isinstance(text, str):
            return dict(self.tokenizer(text, **cut))
        try:
            return dict(self.tokenizer.apply_chat_template(text, tokenize=True, return_dict=True, **cut))
        except Exception as error:  # no template, or one that refuses the roles
            raise ForgetlessError(
                f"the tokenizer makes no text of a chat of the old data: {brief(error)}; set its chat_template, or "
                "give the chats as texts."
            ) from error


def _written(row: Mapping[str, Any]) -> Any:
    """What of a row becomes tokens: its text or its chat, also in two parts, as TRL takes them."""
    if "images" in row or "image" in row:
        return row  # which the collator puts into the text
    if "prompt" in row and isinstance(row["prompt"], str | list):
        # "chosen" is the answer that was preferred (DPO); a prompt alone is what is answered by sampling.
        answer = row.get("completion", row.get("chosen"))
        prompt: Any = row["prompt"]
        return prompt + answer if type(answer) is type(prompt) else prompt
    return next((row[field] for field in _FIELDS if field in row), row)


def filled(data: Any, collate: Collate) -> Any:
    """The rows without the texts that have no token, so that no batch of a few is empty; a stream stays as it is.

    Args:
        data: a list, a `Dataset` or a `datasets.Dataset`.
        collate: tells which have none.

    Raises:
        ForgetlessError: none has.
    """
    if isinstance(data, IterableDataset) or not hasattr(data, "__len__") or not len(data) or not _is_text(data[0]):
        return data
    looked = data
    if hasattr(data, "select_columns"):
        looked = data.select_columns([name for name in _TEXTS if name in data.column_names])
    kept = [number for number in range(len(data)) if not collate.is_empty(looked[number])]
    if len(kept) == len(data):
        return data
    if not kept:
        raise ForgetlessError(f"all {len(data):,} texts of the old data are empty.")
    return data.select(kept) if hasattr(data, "select") else [data[number] for number in kept]


def _is_text(row: Any) -> bool:
    if isinstance(row, Mapping):  # one with pictures is not empty
        return any(name in row for name in _TEXTS) and not any(name in row for name in ("images", "image"))
    return isinstance(row, str)


def _is_empty(feature: Any) -> bool:
    ids = feature.get("input_ids") if isinstance(feature, Mapping) else None
    return isinstance(ids, list | Tensor) and len(ids) == 0


def _described(feature: Any, row: Any) -> str:
    """What the first sample is, for a message: as the collator got it, and as the user has it where fields are lost."""
    if isinstance(feature, Mapping) and isinstance(row, Mapping) and feature.keys() < row.keys():
        return (
            f"a sample has the fields {', '.join(map(quoted, row))}, of which the trainer uses "
            f"{', '.join(map(quoted, feature)) or 'none'}"
        )
    if isinstance(feature, Mapping):
        return f"a sample has the fields {', '.join(map(quoted, feature)) or 'none'}"
    return f"a sample is a {type(feature).__name__}"


def collated(data: Any, collate: Collate, size: int, share: tuple[int, int]) -> Iterable[Any]:
    """The batches of rows, in their order, as often as the rows can be gone through.

    Args:
        data: a list, a `Dataset` or a `datasets.Dataset`.
        collate: rows → batches.
        size: rows of a batch.
        share: this process's number and how many there are: each takes every so many-th row; of a stream, whose length
            is not known, all.

    Raises:
        ForgetlessError: while they are gone through: there are no rows, or none with a token; those of `Collate`.
    """
    return repeated(data, lambda: _collated(data, collate, size, share))


def repeated(data: Any, made: Callable[[], Iterator[Any]]) -> Iterable[Any]:
    """What `made` gives of the data: once if they are an iterator, else each time anew."""
    return made() if isinstance(data, Iterator) else _Repeated(made)


class _Repeated:
    """See `repeated`."""

    def __init__(self, made: Callable[[], Iterator[Any]]) -> None:
        self._made = made

    def __iter__(self) -> Iterator[Any]:
        return self._made()


def _collated(data: Any, collate: Collate, size: int, share: tuple[int, int]) -> Iterator[Any]:
    if isinstance(data, IterableDataset) or not hasattr(data, "__len__"):
        rows = iter(data)
    else:
        number, processes = share
        rows = (data[k] for k in range(number, len(data), processes))
        if not len(data):
            raise ForgetlessError("the old data hold no samples.")
    found, measured = 0, 0
    while several := list(islice(rows, size)):
        found += len(several)
        for batch in collate(several):
            measured += batches.size(batch)
            yield batch
    if found and not measured and share[1] == 1:
        raise ForgetlessError(f"all {found:,} texts of the old data are empty.")
