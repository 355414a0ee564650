"""Words in one piece of memory, against a list."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fact_sets import pyarrow
from forgetless.lab.facts.vocabulary import Vocabulary

WORDS = st.lists(st.text("abä\U0001f6f6 ", max_size=3), max_size=30)


@given(WORDS, st.lists(st.text("abä\U0001f6f6 c", max_size=4), max_size=5), st.booleans())
def test_a_vocabulary_against_a_list(words: list[str], others: list[str], arrow: bool) -> None:
    column = pyarrow.chunked_array([words], pyarrow.string())
    found = Vocabulary.of_column(column) if arrow else Vocabulary.of(words)
    assert len(found) == len(words)
    assert list(found) == [found[number] for number in range(len(words))] == found[:] == words
    for word in [*words, *others]:
        assert found.row(word) == (words.index(word) if word in words else None)
        assert (word in found) == (word in words)


@given(st.lists(WORDS, max_size=3), st.integers(0, 5), st.integers(0, 20))
def test_a_column_in_pieces_and_a_part_of_one(pieces: list[list[str]], start: int, count: int) -> None:
    column = pyarrow.chunked_array(pieces, pyarrow.string()).slice(start, count)
    assert list(Vocabulary.of_column(column)) == column.to_pylist()


def test_words_that_are_none() -> None:
    found = Vocabulary.of(["a", "bb"])
    assert found.row("\ud800") is None  # text that no file holds
    assert 3 not in found
    for values, kind in (([1, 2], pyarrow.int64()), (["a", None], pyarrow.string())):
        with pytest.raises(ValueError, match=r"^its words are "):
            Vocabulary.of_column(pyarrow.chunked_array([values], kind))
