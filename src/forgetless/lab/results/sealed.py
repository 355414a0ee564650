"""JSON files with a checksum of their content: a changed bit is refused when the file is read.

The checksum stands in the file, under the key "sha256". It is the SHA-256 of everything else in a canonical form, so
that only the content counts, not how it is laid out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from forgetless import files
from forgetless.errors import ForgetlessError

_KEY = "sha256"
_WIDTH = 120


def write_sealed(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object and its checksum to `path`, whole or not at all; NaN and Infinity are refused."""
    held = {key: value for key, value in content.items() if key != _KEY}
    files.write_text(path, layout({**held, _KEY: checksum(held)}) + "\n")


def read_sealed(path: str | Path) -> dict[str, Any]:
    """Read what `write_sealed` wrote, without the checksum.

    Raises:
        ForgetlessError: the file is missing, not JSON, or not what was written.
    """
    held = files.read_json(path)
    if not isinstance(held, dict) or _KEY not in held:
        raise ForgetlessError(
            f"{path} has no checksum {_KEY!r}: it was not written by this version of forgetless, or edited by hand; "
            "restore it from a copy, or remove it."
        )
    found = held.pop(_KEY)
    try:
        right = found == checksum(held)
    except (ValueError, RecursionError):  # NaN, or nested beyond all use
        right = False
    if not right:
        raise ForgetlessError(
            f"{path} does not match its checksum: it is damaged or was edited by hand; restore it from a copy, or "
            "remove it."
        )
    return held


def checksum(content: Mapping[str, Any]) -> str:
    """The SHA-256 of a JSON object, as 64 hexadecimal digits; the order of its keys does not count."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def layout(value: Any) -> str:
    """JSON for people: a row of numbers on a line, and whatever else fits on one."""
    return "".join(_pieces(value, ""))


def _pieces(value: Any, indent: str) -> Iterator[str]:
    line = json.dumps(value, ensure_ascii=False, allow_nan=False)
    inner = value.values() if isinstance(value, dict) else value
    if not isinstance(value, (dict, list, tuple)) or _on_one_line(value, inner, len(indent) + len(line)):
        yield line
        return
    deeper = indent + " "
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    yield opening + "\n"
    keys = [json.dumps(str(key), ensure_ascii=False) + ": " for key in value] if isinstance(value, dict) else None
    for number, each in enumerate(inner):
        yield deeper + (keys[number] if keys else "")
        yield from _pieces(each, deeper)
        yield ",\n" if number < len(inner) - 1 else "\n"
    yield indent + closing


def _on_one_line(value: Any, inner: Any, width: int) -> bool:
    """A list of plain values always, as a row of R is; what holds no other container if it fits."""
    plain = not any(isinstance(each, (dict, list, tuple)) for each in inner)
    return not value or (plain and (not isinstance(value, dict) or width <= _WIDTH))
