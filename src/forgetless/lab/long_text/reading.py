"""A long text read by windows: rows of it side by side, each going on where its last window ended."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from forgetless.errors import ForgetlessError
from forgetless.lab.long_text.corpora import Corpus
from forgetless.lab.long_text.vocabularies import Vocabulary


@dataclass(frozen=True)
class Tokens:
    """A part of a corpus as one line of tokens.

    Attributes:
        tokens: `[S]`, uint8 or int32.
        characters: how many bytes they stand for.
    """

    tokens: Tensor
    characters: int

    def __len__(self) -> int:
        return len(self.tokens)


def encoded(corpus: Corpus, part: str, vocabulary: Vocabulary) -> Tokens:
    """The documents of a part, one after the other.

    Raises:
        ForgetlessError: a document that the vocabulary cannot tell.
    """
    pieces, characters = list[Tensor](), 0
    for document in corpus.parts[part]:
        text = document.read()
        characters += len(text)
        pieces.append(vocabulary.encode(text, document.name))
    return Tokens(torch.cat(pieces), characters)


def window(tokens: Tensor, start: int, number: int, rows: int, length: int) -> tuple[Tensor, Tensor]:
    """Window `number` of `rows` rows that begin evenly apart, the first at `start`, and go around at the end.

    Args:
        tokens: `[S]`.
        start: where the first row begins.
        number: which window, from 0.
        rows: how many rows.
        length: of a window, T.

    Returns:
        The tokens and those that follow each of them, int64 `[rows, T]`.
    """
    begins = start + torch.arange(rows) * (len(tokens) // rows) + number * length
    places = (begins[:, None] + torch.arange(length + 1)) % len(tokens)
    found = tokens[places].long()
    return found[:, :-1], found[:, 1:]


def refuse_short(tokens: Tokens, part: str, rows: int, length: int) -> None:
    """Refuse a text of which a row would not fill a window.

    Raises:
        ForgetlessError: saying how long it is.
    """
    if len(tokens) // rows <= length:
        raise ForgetlessError(
            f"the {part} text is too short: {len(tokens)} tokens in {rows} rows leave {len(tokens) // rows} each, "
            f"and a window has {length}; give a longer text, fewer rows or a smaller window."
        )
