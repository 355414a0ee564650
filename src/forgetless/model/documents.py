"""Packed rows: several documents one after the other in a row of tokens. A document is a sample.

Trainers of language models pack documents into rows (TRL's `packing=True`), or a whole batch into one row
("padding-free"). Where a document begins is then told by `seq_lengths`, `cu_seq_lens_q`, `seq_idx`, or by
`position_ids` that do not go on from the position before. Such a batch is unpacked before it is measured: every
document becomes a row, padded on its right, with an attention mask. So no document can attend to another, whatever the
model makes of the packed row (transformers separates documents only without a cache and without an attention mask).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from forgetless.errors import ForgetlessError
from forgetless.model import batches
from forgetless.model.masks import IGNORED, attended

_TELLING = ("seq_lengths", "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "seq_idx")
FULL = 0.75  # of the longest document of a batch, the shortest: so much of a row is no padding


def unpacked(batch: Any, full: float = FULL) -> list[tuple[Any, Tensor | None]]:
    """The documents of a packed batch as batches of rows, of about one length each; any other batch as it is.

    A batch of listed pictures (`batches.listed`), whose sizes may differ, comes apart into batches of one.

    Args:
        batch: packed where its `input_ids` or `inputs_embeds` have rows of several documents, or where it tells lengths
            or numbers of documents.
        full: documents that are put together have at least this share of the longest one's length: 1 for none that are
            padded, 0 for all together, in their order.

    Returns:
        Batches, the longest documents first, and the numbers of their documents in the packed batch; None for a batch
        that is given back as it is.

    Raises:
        ForgetlessError: a packed batch that is a tuple, or has a tensor that cannot be cut into documents (named).
    """
    if (alone := batches.listed(batch)) is not None:
        return [(each, torch.tensor([n])) for n, each in enumerate(alone)]
    given = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
    found = _Documents.of(given) if isinstance(given, Mapping) else None
    if found is None:
        return [(batch, None)]
    if given is not batch:
        raise ForgetlessError("a batch of packed documents must be a dict, its labels under 'labels', not a tuple.")
    return [(found.rows(given, numbers), numbers) for numbers in found.alike(full)]


@dataclass(frozen=True)
class _Documents:
    """Which positions of a packed batch are which document's.

    Attributes:
        shape: of the tokens, `(B, T)`.
        places: the positions of all documents in order, as indices into `B · T`.
        lengths: how many of them are each document's, `[N]`.
    """

    shape: tuple[int, int]
    places: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> _Documents | None:
        """The documents of a batch; None where every row is one."""
        ids = next((given[k] for k in ("input_ids", "inputs_embeds") if isinstance(given.get(k), Tensor)), None)
        if ids is None or ids.dim() < 2 or not ids.numel():
            return None
        rows, length = shape = (int(ids.shape[0]), int(ids.shape[1]))
        found = _beginnings(given, shape)
        if found is None:
            return None
        begins, known, exact = found
        begins[:, :1] = True
        mask = given.get("attention_mask")
        if isinstance(mask, Tensor) and mask.shape == shape:
            known = known & attended(mask)
        elif not exact:
            known = known & ~_padding(begins)
        places = known.flatten().nonzero().squeeze(1)
        lengths = begins.flatten().cumsum(0)[places].bincount()
        lengths = lengths[lengths > 0]
        told = any(key in given for key in _TELLING)
        whole = len(lengths) == rows and (isinstance(mask, Tensor) or len(places) == rows * length)
        return None if whole and not told else cls(shape, places, lengths)

    def alike(self, full: float) -> list[Tensor]:
        """The numbers of the documents, those of about one length together."""
        lengths = self.lengths.tolist()
        if full <= 0:
            return [torch.arange(len(lengths))] if lengths else []
        groups: list[list[int]] = []
        for number in sorted(range(len(lengths)), key=lambda n: -lengths[n]):
            if not groups or lengths[number] < full * lengths[groups[-1][0]]:
                groups.append([])
            groups[-1].append(number)
        return [torch.tensor(group) for group in groups]

    def rows(self, given: Mapping[str, Any], numbers: Tensor) -> Any:
        """These documents, a row each, in the form of the packed batch and with an attention mask."""
        found: Any = copy.copy(given) if isinstance(given, MutableMapping) else dict(given)
        for key in _TELLING:
            found.pop(key, None)
        mask = given.get("attention_mask")
        for key in list(found):
            found[key] = self.cut(key, found[key], numbers, IGNORED if key in batches.LABELS else None)
        _, inside = self._index(numbers)
        found["attention_mask"] = inside.to(mask.dtype if isinstance(mask, Tensor) else torch.int64)
        return found

    def cut(self, name: str, value: Any, numbers: Tensor, outside: int | None) -> Any:
        """What these documents have of a tensor `[B, T, …]`: `[N, L, …]`, on the right the last token's again.

        Args:
            name: of the tensor, for messages.
            value: what is not a tensor, and what has neither rows nor positions, stays as it is.
            numbers: of the documents.
            outside: what stands on the right instead.
        """
        rows, length = self.shape
        if not isinstance(value, Tensor) or not (value.shape[:1] == (rows,) or length in value.shape):
            return value
        if value.shape == (1, length):
            value = value.expand(rows, length)
        if value.shape[:2] != self.shape:
            raise ForgetlessError(
                f"{name!r} of shape {tuple(value.shape)} cannot be cut into the {len(self.lengths)} documents of a "
                f"packed batch, as a tensor [{rows}, {length}] can; leave it out, or give batches with a document in "
                "each row."
            )
        index, inside = self._index(numbers)
        found = value.flatten(0, 1)[index]
        return found if outside is None else found.masked_fill(~inside, outside)

    def _index(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Where the tokens of these documents are, and which of them are their own: `[N, L]` each."""
        chosen = numbers.to(self.places.device)
        own, first = self.lengths[chosen], (self.lengths.cumsum(0) - self.lengths)[chosen]
        steps = torch.arange(int(own.max()), device=self.places.device)
        inside = steps < own[:, None]
        return self.places[first[:, None] + torch.minimum(steps, own[:, None] - 1)], inside


def _beginnings(given: Mapping[str, Any], shape: tuple[int, int]) -> tuple[Tensor, Tensor, bool] | None:
    """Where a document begins, which positions are any document's (`[B, T]` each), and whether that leaves no doubt."""
    rows, length = shape
    if "seq_lengths" in given:
        own = given["seq_lengths"]
        own = own if isinstance(own, Tensor) else pad_sequence([torch.as_tensor(row) for row in own], batch_first=True)
        steps, ends = torch.arange(length, device=own.device), own.reshape(rows, -1).cumsum(1)
        return (steps[None, :, None] == ends[:, None, :]).any(2), steps < ends[:, -1:], True
    edges = given.get("cu_seq_lens_q")
    if isinstance(edges, Tensor):
        places = torch.arange(rows * length, device=edges.device)
        return torch.isin(places, edges).view(shape), (places < edges.max()).view(shape), False
    for key, step in (("seq_idx", 0), ("position_ids", 1)):
        told = given.get(key)
        if isinstance(told, Tensor) and told.dim() == 2 and told.shape[1] == length and not told.is_floating_point():
            told = told.expand(rows, length)
            return told.diff(dim=1, prepend=told[:, :1] - step) != step, told >= 0, False
    return None


def _padding(begins: Tensor) -> Tensor:
    """The positions behind the last document of a row: where documents of one token follow each other to its end.

    Padding is written so (`position_ids` of 0, 0, 0), and such a document has nothing to predict.
    """
    ends = begins.roll(-1, 1)
    ends[:, -1:] = True
    found = (begins & ends).flip(1).long().cumprod(1).flip(1).bool()
    found[:, :1] = False
    return found
