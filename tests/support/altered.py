"""Altered files: any bytes, and the bytes of a good file with some changed, cut out, doubled or put elsewhere.

`FORGETLESS_FUZZ` is how many altered inputs each reader gets (default 60): a small share in the suite, millions in a
soak.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from forgetless.errors import ForgetlessError

COUNT = int(os.environ.get("FORGETLESS_FUZZ", "60"))

#: For tests that draw altered inputs.
fuzzed = settings(max_examples=COUNT, deadline=None, suppress_health_check=list(HealthCheck))

_PIECES = (
    *(
        b"\0",
        b"\xff",
        b"\x7f",
        b"\x80",
        b"\xff" * 4,
        b"\xff" * 8,
        b"\0" * 8,
        b"\0" * 512,
        b"9" * 11,
        b"../",
        b"NaN",
        b"-1",
    ),
    *(
        b"null",
        b"true",
        b"[]",
        b"{}",
        b'""',
        b"[" * 100,
        b"\n",
        b'"',
        b",",
        b":",
        b"\xef\xbb\xbf",
        b"\\ud800",
        b"\r",
        b"*a",
        b"&a ",
        b'!!int ""',
    ),
)
_TEXTS = (
    b"-1",
    b"0",
    b"1",
    b"1e400",
    b"-1e-400",
    b"0.5",
    b"NaN",
    b"9" * 30,
    b"4294967296",
    b"9223372036854775808",
    b"1e3",
    b"-0",
    b'"1"',
)
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 0.5, -0.0, 1e308, float("nan"), float("inf"), 2**31, 2**53, 2**63, 10**400),
    *("", "a", "ä\n", "\ud800", "x" * 300, "../a", "/", "F8_E4M3", [], [[]], [None], [0, 0], {}, {"a": {"a": 1}}),
)
#: How files of other kinds begin.
_BEGINNINGS = (
    *(
        b"\x1f\x8b\x08",
        b"BZh9",
        b"\xfd7zXZ\0",
        b"PK\x03\x04",
        b"\x93NUMPY",
        b"PAR1",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0",
    ),
    *(
        b"GIF89a",
        b"BM",
        b"II*\0",
        b"MM\0*",
        b"RIFF",
        b"P6\n",
        b"\x80\x04",
        b"<!DOCTYPE ",
        b"%PDF-1.4",
        b"%!PS-Adobe",
        b"{",
        b"\xff\xfe",
    ),
)
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")


def altered(content: bytes, seed: int, others: Sequence[bytes] = ()) -> bytes:
    """The bytes of a good file after one to four changes, chosen by `seed`.

    Args:
        content: the file.
        seed: makes the same changes again.
        others: good files of its kind, whose ends it may get.
    """
    chance = random.Random(seed)
    found = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 3, 4))):
        _CHANGES[chance.randrange(len(_CHANGES))](found, chance, others)
    return bytes(found)


def _place(found: bytearray, chance: random.Random) -> tuple[int, int]:
    """From where to where."""
    at = chance.randrange(len(found) + 1)
    return at, min(at + chance.choice((1, 2, 4, 8, 64, 512)), len(found))


def _bit(found: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    if found:
        found[chance.randrange(len(found))] ^= 1 << chance.randrange(8)


def _byte(found: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    if found:
        found[chance.randrange(len(found))] = chance.randrange(256)


def _cut_out(found: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    at, end = _place(found, chance)
    del found[at:end]


def _cut_off(found: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    del found[chance.randrange(len(found) + 1) :]


def _repeated(found: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    at, end = _place(found, chance)
    found[at:at] = found[at:end] * chance.choice((1, 1, 2, 50))


def _swapped(found: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    """Two pieces of one length change places, such as two lengths."""
    at, end = _place(found, chance)
    if found and end - at <= len(found) - (end - at):
        other = chance.randrange(len(found) - (end - at) + 1)
        if abs(other - at) >= end - at:
            found[at:end], found[other : other + end - at] = found[other : other + end - at], found[at:end]


def _put_over(found: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    at, piece = chance.randrange(len(found) + 1), chance.choice(_PIECES)
    found[at : at + len(piece)] = piece


def _put_in(found: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    at = chance.randrange(len(found) + 1)
    found[at:at] = chance.choice(_PIECES)


def _integer(found: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    """A number of 2, 4 or 8 bytes becomes another: a length, an offset, a count."""
    size, order = chance.choice((2, 4, 8)), chance.choice(("little", "big"))
    at = chance.randrange(max(len(found) - size, 0) + 1)
    value = int.from_bytes(found[at : at + size], order)
    new = chance.choice((value + 1, value - 1, 2 * value, -value, value // 2, chance.randrange(1 << 16), len(found)))
    found[at : at + size] = (new % (1 << 8 * size)).to_bytes(size, order)


def _number(found: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    """A number that is written out becomes another."""
    there = _NUMBER.search(found, chance.randrange(len(found) + 1)) or _NUMBER.search(found)
    if there:
        found[there.start() : there.end()] = chance.choice(_TEXTS)


def _value(found: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    """One value of JSON becomes another, or goes: of the whole, of a line, or of the header of a safetensors file."""
    length = int.from_bytes(found[:8], "little")
    if found[8:9] == b"{" and length <= len(found):
        start, end = 8, 8 + length
    else:
        start = found.rfind(b"\n", 0, chance.randrange(len(found) + 1)) + 1 if found.count(b"\n{") else 0
        end = found.find(b"\n", start) if found.count(b"\n{") else len(found)
    try:
        value = json.loads(found[start : end if end > 0 else None])
    except (ValueError, RecursionError):
        return
    found[start : end if end > 0 else len(found)] = text = json.dumps(_changed(value, chance)).encode()
    if start == 8:
        found[:8] = len(text).to_bytes(8, "little")


def _changed(value: Any, chance: random.Random) -> Any:
    """The value with another in some place."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    if not keys or chance.random() < 0.2:
        return chance.choice(_VALUES)
    key = chance.choice(keys)
    if chance.random() < 0.2:
        moved = value.pop(key)
        if isinstance(value, dict) and chance.random() < 0.5:
            value[f"{key}{chance.choice(('x', '', ' '))}"[chance.randrange(2) :]] = moved
    else:
        value[key] = _changed(value[key], chance)
    return value


def _beginning(found: bytearray, chance: random.Random, _: Sequence[bytes]) -> None:
    piece = chance.choice(_BEGINNINGS)
    found[: len(piece) if chance.random() < 0.5 else 0] = piece


def _spliced(found: bytearray, chance: random.Random, others: Sequence[bytes]) -> None:
    """It goes on as another good file does, from the same place or any."""
    other = chance.choice(others or (bytes(found),))
    at = chance.randrange(len(found) + 1)
    found[at:] = other[at if chance.random() < 0.5 else chance.randrange(len(other) + 1) :]


_CHANGES = (
    *(_bit, _byte, _cut_out, _cut_off, _repeated, _swapped, _put_over, _put_in, _integer, _number, _value, _beginning),
    _spliced,
)


def contents(good: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Altered good files, mostly, and any bytes."""
    some = st.builds(altered, st.sampled_from(good), st.integers(0, 2**63), st.just(good))
    return st.one_of(some, some, some, st.binary(max_size=200))


def taken_or_told(read: Callable[[], object], folder: Path, *, writes: Sequence[Path] = ()) -> None:
    """Let a reader read; anything but success or a sentence fails, and so does a file that appears elsewhere."""
    before = _listing(folder, writes)
    said = ""
    try:
        read()
    except ForgetlessError as error:
        said = str(error)
    assert said == "" or said.isprintable(), ascii(said)
    assert len(said) < 2000
    assert _listing(folder, writes) == before


def _listing(folder: Path, without: Sequence[Path]) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    left, passed = [str(folder)], {str(path) for path in without}
    while left:
        with os.scandir(left.pop()) as entries:
            for each in entries:
                if each.path in passed:
                    continue
                inside = each.is_dir(follow_symlinks=False)
                found.append((each.path, 0 if inside else each.stat(follow_symlinks=False).st_mtime_ns))
                left += [each.path] * inside
    return sorted(found)


@dataclass(frozen=True)
class Reader:
    """How a kind of file is read.

    Attributes:
        good: makes whole files of this kind.
        read: (content, a folder with nothing in it but what earlier calls put there) → None; asserts that content was
            taken for what it is, or told in a sentence.
    """

    good: Callable[[], Iterable[bytes]]
    read: Callable[[bytes, Path], None]


def one_file(read: Callable[[Path], object], name: str = "f") -> Callable[[bytes, Path], None]:
    """A reader of one file, which writes nothing."""

    def each(content: bytes, root: Path) -> None:
        path = root / name
        path.write_bytes(content)
        taken_or_told(lambda: read(path), root)

    return each
