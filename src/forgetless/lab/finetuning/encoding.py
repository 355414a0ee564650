"""Documents → token numbers → padded batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from forgetless.errors import ForgetlessError, brief
from forgetless.lab.datasets.reading.documents import Document

_WINDOW = 512  # documents among which those of similar length are brought together


def encode(tokenizer: Any, documents: Sequence[Document], length: int, *, split: bool) -> list[list[int]]:
    """The token numbers of every document.

    A chat becomes a text by the tokenizer's chat template.

    Args:
        tokenizer: of transformers.
        documents: texts and chats.
        length: the most tokens of a sample.
        split: whether a longer document becomes several samples; otherwise its rest is cut off.

    Raises:
        ForgetlessError: the tokenizer has no chat template, or it cannot be applied.
    """
    found: list[list[int]] = []
    for document in documents:
        # The template writes the special tokens itself.
        text, special = (document, True) if isinstance(document, str) else (_chat(tokenizer, document), False)
        numbers = tokenizer(text, add_special_tokens=special, truncation=not split, max_length=length)["input_ids"]
        parts = [numbers[at : at + length] for at in range(0, len(numbers), length)]
        found += [part for part in parts if len(part) > 1 or not split]
    return found


def _chat(tokenizer: Any, messages: list[dict[str, Any]]) -> str:
    if not getattr(tokenizer, "chat_template", None):
        raise ForgetlessError("the data holds chats, and the model's tokenizer has no chat template; give plain texts.")
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False))
    except Exception as error:
        raise ForgetlessError(f"the tokenizer's chat template does not take the messages: {brief(error)}.") from error


def padded(tokenizer: Any, rows: Sequence[list[int]]) -> dict[str, Tensor]:
    """A batch: `input_ids` and `attention_mask`, int64 `[N, T]`, T the longest row."""
    found = tokenizer.pad({"input_ids": list(rows)}, return_tensors="pt")
    return {"input_ids": found["input_ids"], "attention_mask": found["attention_mask"]}


def by_length(rows: Sequence[list[int]]) -> list[int]:
    """The numbers of the rows in their order, but sorted by length inside every window of 512.

    Batches then need little padding, and whoever stops early has seen short and long ones alike.
    """
    windows = (range(start, min(start + _WINDOW, len(rows))) for start in range(0, len(rows), _WINDOW))
    return [number for window in windows for number in sorted(window, key=lambda n: len(rows[n]))]
