"""Corpora as they are published, and texts of one's own: training, validation and test documents, as bytes.

`own` takes any text files, `pg19` the folders of books, `enwik8` the file or its zip, `wikitext103` the folder.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from forgetless import files
from forgetless.errors import ForgetlessError, brief, quoted

PARTS = ("train", "validation", "test")
_ENWIK8 = 100_000_000
_MOST_BYTES = 2 << 30  # of a member of a zip; WikiText-103's largest has a quarter of that
#: PG-19: books and words of each part (github.com/google-deepmind/pg19).
_PG19 = {"train": (28_602, 1_973_136_207), "validation": (50, 3_007_061), "test": (100, 6_966_499)}


@dataclass(frozen=True)
class Document:
    """A text.

    Attributes:
        name: where it is from, for messages.
        read: gives its bytes; called when they are needed.
    """

    name: str
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Corpus:
    """Texts to learn from, to choose by, and to test on.

    Attributes:
        name: what it is called.
        parts: "train", "validation" and "test" → documents, in order.
        words: part → how many words it has, for perplexity by word; empty where that is not its measure.
    """

    name: str
    parts: dict[str, list[Document]]
    words: dict[str, int]


def own(paths: Sequence[Path], window: int) -> Corpus:
    """Text files of one's own: of each, the first 90 % are to learn from, 5 % to validate and the last 5 % to test.

    Args:
        paths: the files.
        window: how long a window is; every part of a file is at least as long.

    Raises:
        ForgetlessError: no files, one twice, or one that is missing or too short.
    """
    if not paths or len(set(paths)) < len(paths):
        raise ForgetlessError("long-text needs one text file or more, each once: give them with --text FILE.")
    parts: dict[str, list[Document]] = {part: [] for part in PARTS}
    for path in paths:
        text = _bytes(path)
        cuts = _cuts(len(text))
        if min(stop - start for start, stop in cuts) <= window:
            raise ForgetlessError(
                f"{path} is too short: a twentieth of its {len(text)} bytes is no more than a window of {window}; "
                "give a longer text, or a smaller --window."
            )
        for part, (start, stop) in zip(PARTS, cuts, strict=True):
            parts[part].append(Document(str(path), lambda piece=text[start:stop]: piece))  # type: ignore[misc]
    return Corpus("own", parts, {})


def enwik8(path: Path, size: int = _ENWIK8) -> Corpus:
    """The first 10⁸ bytes of Wikipedia (prize.hutter1.net): 90 million to learn from, 5 to validate, 5 to test.

    Args:
        path: `enwik8`, `enwik8.zip`, or the folder of either.
        size: how many bytes it must have.

    Raises:
        ForgetlessError: the file is missing, damaged, or of another size.
    """
    path = _inside(path, ("enwik8", "enwik8.zip"))
    text = _unzipped(path, "enwik8") if path.suffix == ".zip" else _bytes(path)
    if len(text) != size:
        raise ForgetlessError(f"{path} is not Enwik8: it holds {len(text)} bytes, not {size}.")
    pieces = {part: text[a:b] for part, (a, b) in zip(PARTS, _cuts(size), strict=True)}
    parts = {
        part: [Document(str(path), lambda piece=piece: piece)]  # type: ignore[misc]
        for part, piece in pieces.items()
    }
    return Corpus("enwik8", parts, {})


def wikitext103(path: Path) -> Corpus:
    """WikiText-103 (Merity et al. 2016), as tokens or raw: `wiki.train.tokens` and so on. A line's end is a word too.

    Args:
        path: the folder with the three files, or the zip that holds it.

    Raises:
        ForgetlessError: a file is missing or the zip is damaged.
    """
    parts, words = {}, {}
    for part, called in zip(PARTS, ("train", "valid", "test"), strict=True):
        names = (f"wiki.{called}.tokens", f"wiki.{called}.raw")
        if path.suffix == ".zip":
            text = _unzipped(path, *names)
            where = f"{path} ({part})"
        else:
            file = _inside(path, names)
            text, where = _bytes(file), str(file)
        parts[part] = [Document(where, lambda text=text: text)]  # type: ignore[misc]
        words[part] = len(text.split()) + text.count(b"\n")
    return Corpus("wikitext-103", parts, words)


def pg19(path: Path) -> Corpus:
    """PG-19 (Rae et al. 2019): the folders `train`, `validation` and `test` of books, `*.txt`.

    Words are the official counts where all books are there, else those between white space.

    Raises:
        ForgetlessError: a folder is missing or empty.
    """
    parts, words = {}, {}
    for part, (books, official) in _PG19.items():
        found = sorted((path / part).glob("*.txt"))
        if not found:
            raise ForgetlessError(f"{path} is not PG-19: its folder {part!r} has no book (*.txt).")
        parts[part] = [Document(str(each), lambda each=each: _bytes(each)) for each in found]  # type: ignore[misc]
        if part != "train":
            counted = len(found) != books
            words[part] = sum(len(each.read().split()) for each in parts[part]) if counted else official
    return Corpus("pg-19", parts, words)


def _bytes(path: Path) -> bytes:
    with files.opened(path) as file:
        return file.read()


def _cuts(size: int) -> list[tuple[int, int]]:
    """From where to where the parts of a text of so many bytes go."""
    first, second = size * 90 // 100, size * 95 // 100
    return [(0, first), (first, second), (second, size)]


def _inside(path: Path, names: Sequence[str]) -> Path:
    """The file itself, or the first of those names in the folder."""
    if not path.is_dir():
        return path
    for name in names:
        if (path / name).is_file():
            return path / name
    raise ForgetlessError(f"{path} has no {' and no '.join(names)}.")


def _unzipped(path: Path, *names: str) -> bytes:
    """The bytes of the first member that has one of those names, in whatever folder of the zip."""
    with files.opened(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                for member in archive.infolist():
                    if member.filename.rpartition("/")[2] in names:
                        if member.file_size > _MOST_BYTES:
                            raise ValueError(f"a member would unpack to {member.file_size} bytes")
                        return archive.read(member)  # no more than it says, with the checksum that it says
        except Exception as error:  # whatever the decoders raise
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise ForgetlessError(f"{path} is damaged or no zip: {brief(error)}.") from error
    raise ForgetlessError(f"{path} does not hold {quoted(names[0])}.")
