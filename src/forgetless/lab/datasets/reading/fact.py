"""A fact as text: `subject,predicate,object`, where parts may be empty."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from forgetless.errors import ForgetlessError, quoted

PARTS = ("subject", "predicate", "object")
_MOST = 200  # letters of a part

Fact = tuple[str, str, str]


def parsed(text: str) -> Fact:
    """The parts of a fact: `"woman,row,boat"`, `"man,run"`, `"person"`; also within `<` and `>`.

    Raises:
        ForgetlessError: more than three parts, none, or one that is too long.
    """
    parts = text.strip().removeprefix("<").removesuffix(">").split(",")
    if len(parts) > len(PARTS):
        raise ForgetlessError(f"a fact is subject,predicate,object, and {quoted(text)} has {len(parts)} parts.")
    return made([*parts, "", ""][: len(PARTS)], quoted(text))


def made(parts: Iterable[str | None], where: str) -> Fact:
    """The fact of these three parts, in small letters (Unicode's NFC) with single blanks; None is an empty part.

    Args:
        parts: subject, predicate and object.
        where: what to call it in an error.

    Raises:
        ForgetlessError: all are empty, or one is too long or holds a comma, `<` or `>`.
    """
    subject, predicate, object_ = (" ".join(unicodedata.normalize("NFC", part or "").lower().split()) for part in parts)
    found = subject, predicate, object_
    if not any(found):
        raise ForgetlessError(f"{where} is no fact: all of its parts are empty.")
    for name, part in zip(PARTS, found, strict=True):
        if len(part) > _MOST or any(mark in part for mark in ",<>"):
            raise ForgetlessError(f"{where} is no fact: its {name} is {quoted(part)}.")
    return found


def written(fact: Fact) -> str:
    """The fact as text, always with two commas; `parsed` reads it."""
    return ",".join(fact)


def shown(text: str) -> str:
    """A fact for people: `woman row boat`."""
    return " ".join(filter(None, text.split(",")))
