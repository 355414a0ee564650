"""JSON, read strictly: what one reader would take and another refuse is refused here.

Python's own decoder takes NaN and Infinity, numbers of any length, the last of two equal keys and text that no encoder
writes. msgspec and pydantic take the last of two equal keys too, so they would not replace this file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from forgetless.errors import ForgetlessError, brief, quoted
from forgetless.files.places import read_bytes, write_text

MOST_BYTES = 256 << 20
DEEPEST = 64
_HIGHEST = 1 << 64


def read_json(path: str | Path) -> Any:
    """Read a JSON file strictly, as `parse_json` does.

    Raises:
        ForgetlessError: the file is missing, unreadable, larger than 256 MiB or not strictly JSON.
    """
    content = read_bytes(path, MOST_BYTES)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ForgetlessError(f"{path} cannot be read as JSON: {brief(error)}.") from error
    return parse_json(text, path)


def parse_json(text: str, where: str | Path) -> Any:
    """The value that a JSON text holds.

    Args:
        text: the JSON.
        where: what to call it in a sentence: a file, a part of one.

    Raises:
        ForgetlessError: it is no JSON, nests deeper than 64 levels, or holds NaN, Infinity, a number beyond a float's
            range or 64 bits, two equal keys in an object, or text that is not Unicode.
    """
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_float, parse_int=_integer
        )
        if any(depth > DEEPEST for depth in _depths(value)):
            raise ValueError(f"it nests deeper than {DEEPEST} levels")
        text.encode("utf-8")
    except RecursionError as error:
        raise ForgetlessError(f"{where} cannot be read as JSON: it nests deeper than {DEEPEST} levels.") from error
    except ValueError as error:
        raise ForgetlessError(f"{where} cannot be read as JSON: {brief(error)}.") from error
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {quoted(twice)} is there twice")
    return found


def _constant(name: str) -> None:
    raise ValueError(f"it holds {name}, which is not a number")


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {quoted(digits)[1:-1]} is beyond the range of a float")
    return value


def _integer(digits: str) -> int:
    if len(digits) > 21 or abs(value := int(digits)) >= _HIGHEST:
        raise ValueError(f"the number {quoted(digits)[1:-1]} has more than 64 bits")
    return value


def _depths(value: Any) -> Iterator[int]:
    """How deep every container and every text lies; refuses texts that are no Unicode."""
    open_ends = [(value, 1)]
    while open_ends:
        each, depth = open_ends.pop()
        if isinstance(each, dict):
            yield depth
            _refuse_halves(*each)
            open_ends += [(inner, depth + 1) for inner in each.values()]
        elif isinstance(each, list):
            yield depth
            open_ends += [(inner, depth + 1) for inner in each]
        elif isinstance(each, str):
            _refuse_halves(each)


def _refuse_halves(*texts: str) -> None:
    for text in texts:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError(f"the text {quoted(text)} is not Unicode") from None


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON to `path`, whole or not at all; a list of numbers or texts takes one line.

    Raises:
        ForgetlessError: `value` holds what `read_json` would refuse or JSON cannot hold, or the system does not let the
            file be written.
    """
    write_text(path, written(value, path) + "\n")


def written(value: Any, where: str | Path) -> str:
    """`value` as JSON in lines; a list of numbers or texts takes one.

    Raises:
        ForgetlessError: it holds what `parse_json` would refuse, or what JSON cannot hold.
    """
    try:
        plain = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ForgetlessError(f"{where} cannot be written as JSON: {brief(error)}.") from error
    return _laid_out(parse_json(plain, where), "\n")


def _laid_out(value: Any, line: str) -> str:
    inner = line + "  "
    if isinstance(value, dict) and value:
        return "{" + ",".join(f"{inner}{json.dumps(k)}: {_laid_out(v, inner)}" for k, v in value.items()) + line + "}"
    if isinstance(value, list) and any(isinstance(each, (list, dict)) for each in value):
        return "[" + ",".join(inner + _laid_out(each, inner) for each in value) + line + "]"
    return json.dumps(value)
