from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from forgetless.errors import ForgetlessError
from forgetless.lab.long_text.corpora import Document
from forgetless.lab.long_text.vocabularies import Bytes, Pieces, Vocabulary, vocabulary

TEXT = "the cat, the hat and the naïve cat: é " * 20


def learned() -> Pieces:
    pytest.importorskip("tokenizers")
    return Pieces.learned([Document("x", lambda: TEXT.encode())], 300)


def again(found: Vocabulary) -> Vocabulary:
    return vocabulary(json.loads(json.dumps(found.saved())))


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=50))
def test_bytes_come_back(text: bytes) -> None:
    tokens = Bytes().encode(text, "x")
    assert tokens.dtype == torch.uint8
    assert again(Bytes()).decode(tokens.tolist()) == text


def test_pieces_come_back_and_are_fewer() -> None:
    pieces = learned()
    for text in (TEXT, "never seen: Ω ∂ 漢字 \x00\t\r\n", ""):
        tokens = pieces.encode(text.encode(), "x")
        assert pieces.decode(tokens.tolist()) == text.encode()
        assert torch.equal(again(pieces).encode(text.encode(), "x"), tokens)
    assert len(pieces.encode(TEXT.encode(), "x")) < len(TEXT.encode()) / 2
    assert 256 < pieces.symbols <= 300


def test_what_is_no_utf_8_is_named_by_its_offset() -> None:
    pieces = learned()
    with pytest.raises(ForgetlessError, match="book is not UTF-8: the byte 0xff at offset 3 begins no character"):
        pieces.encode(b"abc\xffd", "book")
    with pytest.raises(ForgetlessError, match="y is not UTF-8: the byte 0xe9 at offset 1"):
        Pieces.learned([Document("y", lambda: b"n\xe9e")], 300)


def test_other_vocabularies() -> None:
    with pytest.raises(ForgetlessError, match="no vocabulary of the kind 'words'"):
        vocabulary({"kind": "words"})
    pytest.importorskip("tokenizers")
    with pytest.raises(ForgetlessError, match="no definition of a tokenizer"):
        vocabulary({"kind": "pieces", "definition": {"a": 1}})
    with pytest.raises(ForgetlessError, match="at least the 256 bytes, not 255"):
        Pieces.learned([], 255)
