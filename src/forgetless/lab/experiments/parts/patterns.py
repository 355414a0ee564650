"""Which of a folder's facts a network is used for: patterns `subject,predicate,object`, by name or from a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from forgetless import files
from forgetless.errors import ForgetlessError, quoted
from forgetless.lab.datasets.reading.fact import Fact, parsed

ANY = "*"  # the part of a pattern that every part of a fact fits

#: Subsets by name. The settings of the adaptation experiment were chosen on "daily"; "sport" is the paper's.
NAMED = {
    "sport": (
        *("*,bounce,*", "*,cartwheel,*", "*,climb,*", "*,lift,*", "*,play,*", "*,row,*", "*,run,*", "*,swim,*"),
        *("*,ride,bike", "*,ride,mountain bike", "*,ride,wave"),
    ),
    "daily": (
        *("*,bow,*", "*,dance,*", "*,feed,*", "*,gesture,*", "*,get,*", "*,kneel,*", "*,meditate,*", "*,raise,*"),
        *("*,sit in,*", "*,stand,*", "*,walk,*"),
    ),
}


def named(subset: str, names: Sequence[str]) -> list[bool]:
    """Which of the facts `names` a subset of `NAMED` has; of its patterns some may fit none."""
    patterns = [parsed(pattern) for pattern in NAMED[subset]]
    return [any(_fits(parsed(name), pattern) for pattern in patterns) for name in names]


def listed(path: Path, names: Sequence[str]) -> list[bool]:
    """Which of the facts `names` a file lists: a pattern a line, where `*` stands for any part, and `# …` for nothing.

    `man,run` is the fact without an object; `*,run,*` is everybody who runs, with an object or without.

    Raises:
        ForgetlessError: the file cannot be read, lists nothing, or has a line that is no pattern or fits no fact.
    """
    facts = [parsed(name) for name in names]
    found = [False] * len(facts)
    patterns = list(_lines(path))
    if not patterns:
        raise ForgetlessError(f"{path} lists no facts: write a fact a line, such as '*,row,boat'.")
    for number, line in patterns:
        try:
            pattern = parsed(line)
        except ForgetlessError as error:
            raise ForgetlessError(f"{path}, line {number}: {error}") from error
        fitting = [_fits(fact, pattern) for fact in facts]
        if not any(fitting):
            raise ForgetlessError(
                f"{path}, line {number}: no fact with training and test pictures is {quoted(line)}; correct the line, "
                "or take it out."
            )
        found = [one or other for one, other in zip(found, fitting, strict=True)]
    return found


def _lines(path: Path) -> list[tuple[int, str]]:
    """The lines that say something, numbered from 1."""
    try:
        text = files.read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ForgetlessError(f"{path} is no text in UTF-8.") from error
    lines = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1))
    return [(number, line) for number, line in lines if line and not line.startswith("#")]


def _fits(fact: Fact, pattern: Fact) -> bool:
    return all(wanted in (ANY, part) for part, wanted in zip(fact, pattern, strict=True))
