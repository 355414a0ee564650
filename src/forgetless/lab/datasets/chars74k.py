"""The letters of Chars74K (de Campos, Babu, Varma 2009): from street pictures, or drawn in fonts."""

from __future__ import annotations

import string
from pathlib import Path

import torch

from forgetless.errors import ForgetlessError
from forgetless.lab.datasets.reading.entry import Entry, Parts, Source
from forgetless.lab.datasets.reading.pictures import Pictures, stratified

CLASSES = tuple(string.ascii_uppercase + string.ascii_lowercase)
_FIRST = 11  # Sample001 … Sample010 are the digits
_TESTED = 1150 / 8000  # the share that the survey's split keeps for validation and test
_STREET = ("Img/GoodImg/Bmp", "Img/BadImg/Bmp")
_DRAWN = ("Fnt",)


def read(folder: Path) -> Parts:
    """All letters of `English/Img` (good and bad), or those of `English/Fnt` where there is no `English/Img`.

    There is no official split into training and test: 14 % of every class are kept for testing, always the same ones.
    """
    english = folder / "English"
    if not ((english / "Img").is_dir() or (english / "Fnt").is_dir()):
        raise ForgetlessError(f"{folder} is unpacked only in part: it has neither English/Img nor English/Fnt.")
    paths: list[Path] = []
    labels: list[int] = []
    for place in (english / kind for kind in (_STREET if (english / "Img").is_dir() else _DRAWN)):
        if not place.is_dir():
            raise ForgetlessError(
                f"{folder} is unpacked only in part: it has no English/{place.relative_to(english).as_posix()}."
            )
        for label in range(len(CLASSES)):
            sample = place / f"Sample{label + _FIRST:03}"
            if not sample.is_dir():
                raise ForgetlessError(
                    f"{place} is unpacked only in part: it has no folder {sample.name}, {CLASSES[label]!r}."
                )
            mine = sorted(sample.glob("*.png"))
            paths += mine
            labels += [label] * len(mine)
    names = [path.relative_to(folder).as_posix() for path in paths]
    whole = Pictures(CLASSES, paths, names, torch.tensor(labels, dtype=torch.int64))
    missing = [name for number, name in enumerate(CLASSES) if number not in labels]
    if missing:
        raise ForgetlessError(f"{folder} has no picture of {', '.join(missing)}.")
    chosen = stratified(whole.labels, max(round(_TESTED * len(paths)), len(CLASSES)), 0)
    rest = torch.ones(len(paths), dtype=torch.bool)
    rest[chosen] = False
    return whole.only(rest.nonzero().flatten()), whole.only(chosen)


_URL = "https://info-ee.surrey.ac.uk/CVSSP/demos/chars74k/"
ENTRY = Entry(
    "chars74k",
    "Chars74K letters",
    "chars74k",
    "chars74k/ with English/Img/ as EnglishImg.tgz unpacks, or English/Fnt/ as EnglishFnt.tgz does",
    len(CLASSES),
    None,
    None,
    "free for research",
    _URL,
    read,
    (
        Source(
            f"{_URL}EnglishImg.tgz",
            "archives/EnglishImg.tgz",
            "md5:85d157e0c58f998e1cda8def62bcda0d",
            unpack="chars74k",
        ),
    ),
)
