"""Samples as people have them (texts, chats, rows of a data set), in batches that a trainer's data collator makes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from forgetless.errors import ForgetlessError, brief
from forgetless.model import batches


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

        Raises:
            ForgetlessError: texts without a tokenizer, or rows that the collator refuses.
        """
        features = rows if self.as_given else [self._feature(row) for row in rows]
        batch = self._collated(features)
        if batches.size(batch) == len(rows):
            return [batch]
        return [self._collated([feature]) for feature in features]

    def _collated(self, features: list[Any]) -> Any:
        try:
            return self.collator([dict(each) if isinstance(each, Mapping) else each for each in features])
        except ForgetlessError:
            raise
        except Exception as error:
            name = getattr(self.collator, "__name__", type(self.collator).__name__)
            raise ForgetlessError(
                f"the data collator ({name}) refuses the old data: {brief(error)}; give rows like those of the train "
                "set, batches, or collate_fn=."
            ) from error

    def _feature(self, row: Any) -> Any:
        if isinstance(row, Mapping) and "input_ids" not in row:
            row = row.get("text", row.get("messages", row))
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
            found = self.tokenizer(text, **cut)
        else:
            found = self.tokenizer.apply_chat_template(text, tokenize=True, return_dict=True, **cut)
        return dict(found)


def collated(data: Any, collate: Collate, size: int, share: tuple[int, int]) -> Iterator[Any]:
    """The batches of rows, in their order.

    Args:
        data: a list, a `Dataset` or a `datasets.Dataset`.
        collate: rows → batches.
        size: rows of a batch.
        share: this process's number and how many there are: each takes every so many-th row; of a stream, whose length
            is not known, all.

    Raises:
        ForgetlessError: there are no rows; those of `Collate`.
    """
    if isinstance(data, IterableDataset) or not hasattr(data, "__len__"):
        rows = iter(data)
    else:
        number, processes = share
        rows = (data[k] for k in range(number, len(data), processes))
        if not len(data):
            raise ForgetlessError("the old data hold no samples.")
    while several := list(islice(rows, size)):
        yield from collate(several)
