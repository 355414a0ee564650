"""Subsets of facts, by name and from a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from forgetless import ForgetlessError
from forgetless.lab.experiments.parts import patterns

NAMES = ("dog,,", "man,hold,pan", "man,ride,bike", "man,ride,wheelchair", "man,run,", "woman,row,boat", "woman,run,")


def listed(folder: Path, content: str | bytes) -> list[str]:
    path = folder / "used.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [name for name, one in zip(NAMES, patterns.listed(path, NAMES), strict=True) if one]


def test_sport_is_a_list_of_predicates_and_of_what_is_ridden() -> None:
    assert patterns.named("sport", NAMES) == [False, False, True, False, True, True, True]
    assert patterns.named("daily", NAMES) == [False] * len(NAMES)


def test_a_file_of_patterns(tmp_path: Path) -> None:
    assert listed(tmp_path, "# sports\n\n*,run\n<woman, row, boat>\nMAN,ride,*\n") == [*NAMES[2:]]
    assert listed(tmp_path, "\ufeff*,ride,bike\r\n*,ride,bike") == ["man,ride,bike"]
    assert listed(tmp_path, "*,*,*") == list(NAMES)


def test_a_part_that_is_left_out_is_a_part_that_the_fact_has_not(tmp_path: Path) -> None:
    assert listed(tmp_path, "*") == ["dog,,"]
    assert listed(tmp_path, "man,*") == ["man,run,"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "lists no facts: write a fact a line"),
        ("# nothing\n", "lists no facts"),
        ("*,run\n\nman,fly\n", "line 3: no fact with training and test pictures is 'man,fly'; correct the line"),
        ("man,row,the,boat\n", "line 1: a fact is subject,predicate,object, and 'man,row,the,boat' has 4 parts"),
        (",,\n", "line 1: ',,' is no fact: all of its parts are empty"),
        (b"\xff\xfe*", "is no text in UTF-8"),
    ],
)
def test_a_file_that_is_wrong_is_told(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(ForgetlessError, match=message):
        listed(tmp_path, content)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ForgetlessError, match=r"used\.txt cannot be read: it does not exist"):
        patterns.listed(tmp_path / "used.txt", NAMES)
