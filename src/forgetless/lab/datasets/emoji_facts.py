"""Drawings of 133 facts about people by eleven designers of emoji, split by designer. They are no photographs."""

from __future__ import annotations

from pathlib import Path

from forgetless.lab.datasets.reading.entry import Entry, Parts
from forgetless.lab.datasets.reading.fact import PARTS, made
from forgetless.lab.datasets.reading.facts import Rows, labeled
from forgetless.lab.datasets.reading.tables import with_texts

FILE = "emoji_facts.parquet"
#: Their drawings are the test part; those of the nine others the training part. Both have drawn (almost) every fact.
TEST = ("openmoji", "twemoji")


def read(folder: Path) -> Parts:
    """The drawings of nine designers to learn from, those of two others for testing."""
    pictures, names, (*parts, designers) = with_texts(folder / FILE, folder, (*PARTS, "designer"))
    facts = [made(each, name) for *each, name in zip(*parts, names, strict=True)]
    every = list(zip(pictures, names, facts, designers, strict=True))

    def part(tested: bool) -> Rows:
        mine = [row[:3] for row in every if (row[3] in TEST) == tested]
        return [row[0] for row in mine], [row[1] for row in mine], [row[2] for row in mine]

    return labeled(folder, part(False), part(True))


ENTRY = Entry(
    "emoji-facts",
    "emoji facts (drawings of 133 facts by eleven designers)",
    "facts",
    f"facts/{FILE} (columns image, subject, predicate, object, designer)",
    133,
    3326,
    1574,
    "each designer's own open license",
    "https://icon-sets.iconify.design",
    read,
    otherwise="this selection is not distributed; facts takes your own train.parquet and test.parquet instead",
)
