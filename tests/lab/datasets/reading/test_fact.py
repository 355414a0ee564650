from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgetless.errors import ForgetlessError
from forgetless.lab.datasets.reading.fact import Fact, made, parsed, shown, written

PART = st.text(st.characters(exclude_characters=",<>", exclude_categories=["Cs"]), max_size=12)


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("woman,row,boat", ("woman", "row", "boat")),
        ("man,run", ("man", "run", "")),
        ("person", ("person", "", "")),
        (",run,", ("", "run", "")),
        ("<woman,row,boat>", ("woman", "row", "boat")),
        ("  < Woman , ROW\t a,  Big  Boat >\n", ("woman", "row a", "big boat")),
    ],
)
def test_facts_as_people_write_them(text: str, fact: Fact) -> None:
    assert parsed(text) == fact
    assert parsed(written(fact)) == fact


@given(st.tuples(PART, PART, PART).filter(lambda parts: any(part.split() for part in parts)))
def test_what_is_written_is_read_again(parts: tuple[str, str, str]) -> None:
    fact = made(parts, "it")
    assert parsed(written(fact)) == fact
    assert written(fact).count(",") == 2
    assert made(fact, "it") == fact
    assert shown(written(fact)) == " ".join(part for part in fact if part)


@pytest.mark.parametrize("text", ["", " ", "<>", ",,", "< , >"])
def test_a_fact_has_a_part(text: str) -> None:
    with pytest.raises(ForgetlessError, match=r"is no fact: all of its parts are empty\.$"):
        parsed(text)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ((None, "", " \t"), "row 3 is no fact: all of its parts are empty."),
        (("a,b", "", ""), "row 3 is no fact: its subject is 'a,b'."),
        (("a", "b<", ""), "row 3 is no fact: its predicate is 'b<'."),
        (("a", None, ">c"), "row 3 is no fact: its object is '>c'."),
        (("a", "b", "c" * 201), f"row 3 is no fact: its object is '{'c' * 78}…."),
    ],
)
def test_parts_that_are_none(parts: tuple[str | None, ...], said: str) -> None:
    with pytest.raises(ForgetlessError) as caught:
        made(parts, "row 3")
    assert str(caught.value) == said


def test_a_part_may_be_long_and_a_fact_has_three() -> None:
    assert made(("a" * 200, None, None), "it") == ("a" * 200, "", "")
    with pytest.raises(ForgetlessError, match=r"^a fact is subject,predicate,object, and 'a,b,c,d' has 4 parts\.$"):
        parsed("a,b,c,d")
