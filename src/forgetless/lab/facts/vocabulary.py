"""Hundreds of thousands of words in one piece of memory, in which one is found without a Python object for each."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np


class Vocabulary(Sequence[str]):
    """Words in their order, as the UTF-8 of them all.

    A word is looked for among those of its length, a byte at a time; a `dict` of 400,000 words takes a hundred times as
    long to be made as one word to be found here.

    Args:
        text: uint8, the words one after the other.
        ends: integers `[W + 1]`: where each begins in `text`, and where the last one ends.
    """

    def __init__(self, text: np.ndarray, ends: np.ndarray) -> None:
        self._text, self._ends = text, ends
        self._starts, self._lengths = ends[:-1], np.diff(ends)
        self._found: dict[str, int | None] = {}

    @classmethod
    def of(cls, words: Iterable[str]) -> Vocabulary:
        """The vocabulary of these words."""
        encoded = [word.encode() for word in words]
        return cls(np.frombuffer(b"".join(encoded), np.uint8), np.cumsum([0, *map(len, encoded)]))

    @classmethod
    def of_column(cls, column: Any) -> Vocabulary:
        """The vocabulary of a column of a table of Arrow, whose memory it shares.

        Raises:
            ValueError: the column holds anything but words.
        """
        import pyarrow

        if column.type != pyarrow.string() or column.null_count:
            raise ValueError(f"its words are {column.type} with {column.null_count} missing")
        whole = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
        _, ends, text = whole.buffers()
        numbers = np.frombuffer(ends, np.int32)[whole.offset : whole.offset + len(whole) + 1]
        return cls(np.frombuffer(text or b"", np.uint8), numbers)

    def row(self, word: str) -> int | None:
        """The number of a word, of the first where it is there more than once; None where it is not there."""
        if word not in self._found:
            wanted = word.encode("utf-8", "surrogatepass")
            left = np.flatnonzero(self._lengths == len(wanted))
            for place, byte in enumerate(wanted):
                left = left[self._text[self._starts[left] + place] == byte]
            self._found[word] = int(left[0]) if len(left) else None
        return self._found[word]

    def __contains__(self, word: object) -> bool:
        return isinstance(word, str) and self.row(word) is not None

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, number: int) -> str: ...
    @overload
    def __getitem__(self, number: slice) -> list[str]: ...
    def __getitem__(self, number: int | slice) -> str | list[str]:
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(len(self)))]
        start = int(self._starts[number])
        return self._text[start : start + int(self._lengths[number])].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        text = self._text.tobytes()
        return (text[start:end].decode() for start, end in itertools.pairwise(self._ends.tolist()))
