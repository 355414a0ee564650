"""6DS, mid-scale: photographs of 186 facts from six sets (Elhoseiny et al., "Sherlock", AAAI 2017).

As the zip of "Exploring the Challenges towards Lifelong Fact Learning" (ACCV 2018) unpacks, with its splits into four
tasks, at random and by meaning.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from pathlib import Path

from forgetless import files
from forgetless.errors import ForgetlessError, quoted
from forgetless.lab.datasets.reading.entry import Entry, Parts
from forgetless.lab.datasets.reading.fact import Fact, made, written
from forgetless.lab.datasets.reading.facts import labeled
from forgetless.lab.datasets.reading.pictures import Picture
from forgetless.model.parameters import listing

#: How facts are split into tasks → the folder of the split.
SPLITS = {"random": "4tasks_random", "semantic": "4tasks_semantic"}
TASKS = (1, 2, 3, 4)
_MOST_BYTES = 64 << 20


def read(folder: Path) -> Parts:
    """The training and the test part, each over all four tasks of the first split that is there."""
    split = next((each for each in SPLITS if (folder / "splits" / SPLITS[each]).is_dir()), "random")
    facts = _facts(folder, split)
    return labeled(folder, _part(folder, split, "train", facts), _part(folder, split, "test", facts))


def tasks(folder: Path, split: str) -> list[list[str]]:
    """The facts of each task of a split, "random" or "semantic", as text.

    Raises:
        ForgetlessError: a file is missing or damaged.
    """
    found = [[written(fact) for fact in _task(folder, split, task).values()] for task in TASKS]
    every = [fact for facts in found for fact in facts]
    if twice := sorted({fact for fact in every if every.count(fact) > 1}):
        raise ForgetlessError(f"{folder / 'splits' / SPLITS[split]} has {listing(twice)} in several tasks.")
    return found


def _facts(folder: Path, split: str) -> dict[str, Fact]:
    found: dict[str, Fact] = {}
    for task in TASKS:
        for number, fact in _task(folder, split, task).items():
            if found.setdefault(number, fact) != fact:
                raise ForgetlessError(
                    f"{folder / 'splits' / SPLITS[split]} has two facts of the id {quoted(number)}: "
                    f"{quoted(written(found[number]))} and {quoted(written(fact))}."
                )
    return found


def _task(folder: Path, split: str, task: int) -> dict[str, Fact]:
    path = folder / "splits" / SPLITS[split] / f"B{task}_facts.csv"
    found: dict[str, Fact] = {}
    for row, where in _rows(path, ("id", "S", "P", "O")):
        fact = made((row["S"], row["P"], row["O"]), where)
        if found.setdefault(row["id"], fact) != fact:
            raise ForgetlessError(f"{where} has another fact of the id {quoted(row['id'])} than a line above it.")
    return found


def _part(folder: Path, split: str, part: str, facts: dict[str, Fact]) -> tuple[list[Picture], list[str], list[Fact]]:
    pictures: list[Picture] = []
    names, found = [], []
    for task in TASKS:
        path = folder / "splits" / SPLITS[split] / f"B{task}_{part}.csv"
        for row, where in _rows(path, ("image_links", "id")):
            if row["id"] not in facts:
                raise ForgetlessError(f"{where} has the fact {quoted(row['id'])}, which is none of B{task}_facts.csv.")
            name = row["image_links"].strip("'\" ")
            picture = folder / "images" / name
            # Some files are PNG under a name that ends in .jpg in the lists.
            other = Path(os.path.splitext(picture)[0] + ".png")
            pictures.append(other if not os.path.isfile(picture) and os.path.isfile(other) else picture)
            names.append(name)
            found.append(facts[row["id"]])
    return pictures, names, found


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[dict[str, str], str]]:
    """The rows of a CSV file with those columns, each with what to call it."""
    try:
        text = files.read_bytes(path, _MOST_BYTES).decode("utf-8-sig")
        table = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        missing = [column for column in columns if column not in (table.fieldnames or ())]
        rows = [(table.line_num, row) for row in table]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ForgetlessError(f"{path} is no CSV file in UTF-8: {error}.") from error
    if missing:
        raise ForgetlessError(f"{path} has no column {missing[0]!r}.")
    for number, row in rows:
        if any(row[column] is None for column in columns):
            raise ForgetlessError(f"{path} is damaged: line {number} has too few fields.")
        yield {column: row[column].strip() for column in columns}, f"line {number} of {path}"


ENTRY = Entry(
    "6ds",
    "6DS mid-scale facts",
    "6ds",
    "6ds/ with images/ and splits/4tasks_random/ and 4tasks_semantic/ (B1_train.csv … B4_facts.csv), as mid_scale.zip "
    "unpacks",
    186,
    None,
    None,
    "research; the pictures are those of INTERACT, VOC 2012, SPORT, Visual Phrases, PPMI and Stanford 40",
    "https://github.com/Elhoseiny-VisionCAIR-Lab/lifelong_fact_learning",
    read,
    otherwise="the page links mid_scale.zip on Dropbox; unpack it and rename its folder to 6ds",
)
