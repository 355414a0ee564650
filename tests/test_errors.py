"""Foreign values in sentences: short, printable, on one line, whatever they are."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgetless.errors import brief, listing, quoted


class Odd:
    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a", "'a'"),
        ("x" * 100, "'" + "x" * 78 + "…"),
        (b"x" * 10**6, "b'" + "x" * 77 + "…"),
        (10**4000, "a number of 13288 bits"),
        ("a\x1b[31m\n\u202eb", r"'a\x1b[31m\n\u202eb'"),
        (Odd(), "<Odd>"),
        (2**64, "18446744073709551616"),
        (True, "True"),
    ],
)
def test_quoted(value: Any, shown: str) -> None:
    assert quoted(value) == shown


@given(st.text() | st.binary() | st.integers() | st.lists(st.text()))
def test_a_quotation_is_short_and_printable(value: Any) -> None:
    assert len(quoted(value)) <= 80
    assert quoted(value).isprintable()


def test_brief() -> None:
    assert brief(ValueError("one.\ntwo")) == "one"
    assert brief(ValueError()) == "ValueError"
    assert brief(ValueError("\x1b[1m" + "y" * 1000)) == "\ufffd[1m" + "y" * 195 + "…"


def test_listing() -> None:
    assert listing([]) == "none"
    assert listing("abc") == "'a', 'b', 'c'"
    assert listing("abcdefgh") == "'a', 'b', 'c', 'd', 'e', 'f' and 2 more"
