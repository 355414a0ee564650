"""Altered files: any bytes, and the bytes of a good file with some changed, cut out, doubled or put elsewhere.

`FORGETLESS_FUZZ` is how many altered inputs each reader gets (default 60): a small share in the suite, millions in a
soak.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from forgetless.errors import ForgetlessError

COUNT = int(os.environ.get("FORGETLESS_FUZZ", "60"))

#: For tests that draw altered inputs.
fuzzed = settings(max_examples=COUNT, deadline=None, suppress_health_check=list(HealthCheck))

_NUMBERS = (
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
)


def altered(content: bytes, seed: int) -> bytes:
    """The bytes of a good file after one to four changes, chosen by `seed`."""
    chance = random.Random(seed)
    found = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(found) + 1)
        length = chance.choice((1, 2, 4, 8, 64, 512))
        match chance.randrange(6):
            case 0 if at < len(found):
                found[at] ^= 1 << chance.randrange(8)
            case 1:
                del found[at : at + length]
            case 2:
                found[at:at] = found[at : at + length]
            case 3:
                some = chance.choice(_NUMBERS)
                found[at : at + len(some)] = some
            case 4:
                found[at:at] = chance.choice(_NUMBERS)
            case _:
                del found[at:]
    return bytes(found)


def contents(good: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Altered good files, mostly, and any bytes."""
    some = st.builds(altered, st.sampled_from(good), st.integers(0, 2**63))
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
    return sorted(
        (str(path), path.lstat().st_mtime_ns if path.is_file() else 0)
        for path in folder.rglob("*")
        if not any(path.is_relative_to(each) for each in without)
    )
