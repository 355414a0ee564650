"""Whether the documents of a packed batch may be padded: a network may compute something else for a padded one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from forgetless.measure.engine.distance import distance
from forgetless.measure.engine.plan import agreement
from forgetless.measure.engine.target import Target
from forgetless.model import batches, documents

SENTENCE = (
    "the network computes something else for a document that is padded on its right (does it use the attention mask?), "
    "so only documents of equal length are measured together; the numbers are exact, but a batch takes more passes."
)


def padding_changes(target: Target, packed: Any, rows: Any) -> bool | None:
    """Whether the scalars of a padded document are others than without the padding; None where none is padded.

    Args:
        target: what is measured; its scalars take what `rows` makes.
        packed: a batch.
        rows: (batch, the samples' numbers in the packed batch) → what the scalars take, where the network is.
    """
    if batches.listed(packed) is not None:
        return None
    padded = {n: row for row, n in _documents(documents.unpacked(packed)) if not bool(row["attention_mask"].all())}
    if not padded:
        return None
    number = min(padded, key=lambda n: int(padded[n]["attention_mask"].sum()))
    alone = next(row for row, n in _documents(documents.unpacked(packed, full=1)) if n == number)
    chosen = torch.tensor([number])
    with torch.no_grad():
        expected = target.values(rows(alone, chosen)).flatten()
        found = target.values(rows(padded[number], chosen)).flatten()[: len(expected)]
    return distance(found, expected) > agreement(target, expected)


def _documents(pieces: list[tuple[Any, Tensor | None]]) -> list[tuple[Any, int]]:
    """Every document as a batch of one, and its number; nothing where the batch is not packed."""
    return [
        (batches.rows(piece, n, n + 1), int(numbers[n]))
        for piece, numbers in pieces
        if numbers is not None
        for n in range(len(numbers))
    ]
