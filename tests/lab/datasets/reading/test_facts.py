"""Pictures of facts from two Parquet files of one's own."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from fact_sets import FACTS, encoded, own, table
from forgetless.errors import ForgetlessError
from forgetless.lab.datasets.reading.fact import made, written
from forgetless.lab.datasets.reading.facts import labeled, read
from layouts import picture
from warned import said

RUN, ROW, DOG = ("man", "run", ""), ("man", "row", "boat"), ("dog", "", "")


def refusal(folder: Path) -> str:
    with pytest.raises(ForgetlessError) as caught:
        read(folder)
    return str(caught.value)


def test_classes_are_the_facts_of_both_parts_in_alphabetical_order(tmp_path: Path) -> None:
    table(tmp_path / "train.parquet", [encoded(1), encoded(2), encoded(3)], [("Man", " RUN ", None), DOG, ROW])
    table(tmp_path / "test.parquet", [encoded(4), encoded(5)], [(None, "fly", ""), ("man", "run", "")])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train, test = read(tmp_path)
    assert said(caught) == []
    assert train.classes == test.classes == (",fly,", "dog,,", "man,row,boat", "man,run,")
    assert (train.labels.tolist(), test.labels.tolist()) == ([3, 1, 2], [0, 3])
    assert train.labels.dtype == torch.int64
    assert list(train.pictures) == [encoded(1), encoded(2), encoded(3)]
    assert list(test.names) == [f"row {row} of {tmp_path}/test.parquet" for row in (0, 1)]


def test_every_picture_has_its_own_fact(tmp_path: Path) -> None:
    train, test = read(own(tmp_path, train=2, test=1))
    wanted = [written(made(fact, "it")) for fact in FACTS]
    assert [train.classes[label] for label in train.labels.tolist()] == [fact for fact in wanted for _ in range(2)]
    assert [test.classes[label] for label in test.labels.tolist()] == wanted
    assert list(train.pictures) == [encoded(number) for number in range(2 * len(FACTS))]


def test_pictures_may_be_files_beside_the_tables(tmp_path: Path) -> None:
    paths = [picture(tmp_path / "images" / f"{number}.png", number) for number in (1, 2)]
    for part, path in zip(("train", "test"), paths, strict=True):
        table(tmp_path / f"{part}.parquet", [{"bytes": None, "path": f"images/{path.name}"}], [RUN])
    train, test = read(tmp_path)
    assert [*train.pictures, *test.pictures] == paths


def read_with_warnings(folder: Path, train: Sequence[Any], test: Sequence[Any]) -> tuple[Any, Any, list[str]]:
    for part, rows in (("train", train), ("test", test)):
        table(folder / f"{part}.parquet", [encoded(number) for number, _ in rows], [fact for _, fact in rows])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        first, second = read(folder)
    return first, second, said(caught)


def test_a_picture_that_is_there_twice_is_left_out_once(tmp_path: Path) -> None:
    rows = [(1, RUN), (2, RUN), (1, ("MAN", "run", None)), (3, ROW), (1, RUN)]
    train, test, caught = read_with_warnings(tmp_path, rows, [(9, RUN)])
    assert list(train.pictures) == [encoded(1), encoded(2), encoded(3)]
    assert list(train.names) == [f"row {row} of {tmp_path}/train.parquet" for row in (0, 1, 3)]
    assert train.labels.tolist() == [1, 1, 0]
    assert len(test.labels) == 1
    assert caught == ["of the 5 training pictures 2 are there twice, and left out once."]


def test_a_picture_of_several_facts_stays_under_each(tmp_path: Path) -> None:
    rows = [(1, RUN), (1, ROW), (2, DOG), (2, DOG)]
    _, test, caught = read_with_warnings(tmp_path, [(7, DOG)], rows)
    assert list(test.pictures) == [encoded(1), encoded(1), encoded(2)]
    assert [test.classes[label] for label in test.labels.tolist()] == ["man,run,", "man,row,boat", "dog,,"]
    assert caught == [
        "of the 4 test pictures 1 are there twice, and left out once; 1 are there under several facts, such as "
        "'man,run,', 'man,row,boat', and stay under each."
    ]


def test_test_pictures_that_were_trained_on_are_counted(tmp_path: Path) -> None:
    train, test, caught = read_with_warnings(tmp_path, [(1, RUN), (2, ROW), (3, ROW)], [(3, DOG), (4, RUN), (1, RUN)])
    assert (len(train.labels), len(test.labels)) == (3, 3)
    assert caught == ["2 test pictures are training pictures too."]


def test_a_part_without_pictures(tmp_path: Path) -> None:
    rows = ([b"x"], ["x"], [RUN])
    with pytest.raises(ForgetlessError, match=r"^there are no training pictures\.$"):
        labeled(tmp_path, ([], [], []), rows)
    with pytest.raises(ForgetlessError, match=r"^there are no test pictures\.$"):
        labeled(tmp_path, rows, ([], [], []))


def test_bad_tables(tmp_path: Path) -> None:
    own(tmp_path)
    path = tmp_path / "test.parquet"
    table(path, [b"x"], [RUN], predicate=None)
    assert refusal(tmp_path) == f"{path} is not a dataset: it has no column 'predicate'."
    table(path, [b"x"], [RUN], object=[3])
    assert refusal(tmp_path) == f"{path} has 3 for the object of row 0, which is no text."
    table(path, [b"x", b"y"], [RUN, (" ", "", None)])
    assert refusal(tmp_path) == f"row 1 of {path} is no fact: all of its parts are empty."
    table(path, [b"x"], [("a,b", "", "")])
    assert refusal(tmp_path) == f"row 0 of {path} is no fact: its subject is 'a,b'."
    table(path, [b""], [RUN])
    assert refusal(tmp_path) == f"row 0 of {path} holds no picture."
    picture(tmp_path.parent / "out.png")
    table(path, [{"bytes": None, "path": "../out.png"}], [RUN])
    assert refusal(tmp_path) == f"row 0 of {path} names the file '../out.png': it lies outside {tmp_path}."
    path.unlink()
    assert refusal(tmp_path) == f"{path} cannot be read: it does not exist."
    os.mkfifo(path)
    assert refusal(tmp_path) == f"{path} cannot be read: it is a pipe or a device, not a regular file."


def test_no_file_outside_the_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    inner, outer = folder / "a.png", tmp_path / "b.png"
    inner.write_bytes(encoded(1))
    outer.write_bytes(encoded(2))
    opened: list[Path] = []
    monkeypatch.setattr("forgetless.files.read_bytes", lambda path, most=0: opened.append(path) or b"")
    pictures = [inner, outer, folder / ".." / "b.png"]
    labeled(folder, (pictures, ["a", "b", "c"], [RUN, ROW, DOG]), ([b"x"], ["x"], [RUN]))
    assert opened == [inner]
