"""6DS as its zip unpacks: four lists of facts, of training and of test pictures, for each of two splits."""

from __future__ import annotations

import dataclasses
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from fact_layouts import NUMBERED, six_ds
from forgetless.errors import ForgetlessError
from forgetless.lab.datasets.reading.entry import Entry
from forgetless.lab.datasets.six_ds import ENTRY, read, tasks
from layouts import picture, text
from warned import said


def list_of(folder: Path, name: str) -> Path:
    return folder / "splits" / "4tasks_random" / name


def sized() -> Entry:
    """The entry, as if the original were as small."""
    return dataclasses.replace(ENTRY, classes=len(NUMBERED))


def refusal(read: Callable[[], object]) -> str:
    with pytest.raises(ForgetlessError) as caught:
        read()
    return str(caught.value)


def test_pictures_facts_and_files(tmp_path: Path) -> None:
    folder = six_ds(tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train, test = sized().load(tmp_path)
    assert said(caught) == []
    assert train.classes == test.classes == tuple(sorted(NUMBERED.values()))
    for part, place, end in ((train, "images", "train.jpg"), (test, "images/sub folder", "test.png")):
        assert list(part.pictures) == [folder / place / f"{fact}-{end}" for fact in NUMBERED]
        assert [part.classes[label] for label in part.labels.tolist()] == list(NUMBERED.values())
    assert test.names[0] == "sub folder/11-test.jpg"


def test_the_tasks_of_both_splits(tmp_path: Path) -> None:
    folder, facts = six_ds(tmp_path), list(NUMBERED.values())
    wanted = [facts[first : first + 2] for first in (0, 2, 4, 6)]
    assert tasks(folder, "random") == wanted
    assert tasks(folder, "semantic") == wanted[::-1]


def test_one_split_is_enough(tmp_path: Path) -> None:
    both, one = (read(six_ds(tmp_path / name, splits)) for name, splits in (("a", ("random",)), ("b", ("semantic",))))
    assert [part.classes for part in both] == [part.classes for part in one]
    assert refusal(lambda: tasks(tmp_path / "a" / "6ds", "semantic")).endswith(
        "B1_facts.csv cannot be read: it does not exist."
    )


def test_lists_with_a_mark_quotes_empty_lines_and_doubled_pictures(tmp_path: Path) -> None:
    folder = six_ds(tmp_path)
    path = list_of(folder, "B1_train.csv")
    rows = ["image_links,id,more", '"11-train.jpg", 11 ', "", "'12-train.jpg',12,a,b,c", "11-train.jpg,11"]
    path.write_bytes("\r\n".join(["\ufeff" + rows[0], *rows[1:]]).encode())
    with pytest.warns(UserWarning, match=r"^of the 9 training pictures 1 are there twice, and left out once\.$"):
        train, _ = read(folder)
    assert list(train.pictures)[:2] == [folder / "images" / f"{fact}-train.jpg" for fact in ("11", "12")]
    assert len(train.labels) == 8


def test_a_picture_of_two_facts_and_one_in_both_parts(tmp_path: Path) -> None:
    folder = six_ds(tmp_path)
    text(list_of(folder, "B1_train.csv"), "image_links,id", "11-train.jpg,11", "11-train.jpg,12", "12-train.jpg,12")
    text(list_of(folder, "B2_test.csv"), "image_links,id", "21-train.jpg,21", "sub folder/22-test.png,22")
    with pytest.warns(UserWarning) as caught:  # noqa: PT030
        train, _ = read(folder)
    assert said(caught) == [
        "of the 9 training pictures 1 are there under several facts, such as 'person,ride,horse', 'person,ride,bike', "
        "and stay under each.",
        "1 test pictures are training pictures too.",
    ]
    assert [train.classes[label] for label in train.labels.tolist()][:2] == ["person,ride,horse", "person,ride,bike"]


@pytest.mark.parametrize(
    ("file", "lines", "sentence"),
    [
        ("B2_train.csv", ["image_links,fact", "21-train.jpg,21"], "{path} has no column 'id'."),
        ("B2_train.csv", [], "{path} has no column 'image_links'."),
        ("B2_facts.csv", ["id,S,P", "21,dog,"], "{path} has no column 'O'."),
        (
            "B2_test.csv",
            ["image_links,id", "21-test.png,99"],
            "line 2 of {path} has the fact '99', which is none of B2_facts.csv.",
        ),
        ("B2_test.csv", ["image_links,id", "a.png,21", "b.png"], "{path} is damaged: line 3 has too few fields."),
        ("B2_facts.csv", ["id,S,P,O", "21,, ,"], "line 2 of {path} is no fact: all of its parts are empty."),
        ("B2_facts.csv", ["id,S,P,O", '21,"a,b",,'], "line 2 of {path} is no fact: its subject is 'a,b'."),
        ("B2_facts.csv", ["id,S,P,O", '21,"a'], "{path} is no CSV file in UTF-8: unexpected end of data."),
    ],
)
def test_damaged_lists(file: str, lines: list[str], sentence: str, tmp_path: Path) -> None:
    path = list_of(six_ds(tmp_path), file)
    text(path, *lines)
    assert refusal(lambda: read(tmp_path / "6ds")) == sentence.format(path=path)


def test_lists_that_are_no_text_missing_or_no_files(tmp_path: Path) -> None:
    folder = six_ds(tmp_path)
    path = list_of(folder, "B3_facts.csv")
    path.write_bytes(b"id,S,P,O\n1,\xff,,\n")
    assert refusal(lambda: read(folder)).startswith(f"{path} is no CSV file in UTF-8: ")
    path.unlink()
    assert refusal(lambda: read(folder)) == f"{path} cannot be read: it does not exist."
    os.mkfifo(path)
    assert refusal(lambda: read(folder)) == f"{path} cannot be read: it is a pipe or a device, not a regular file."
    shutil.rmtree(folder / "splits")
    first = list_of(folder, "B1_facts.csv")
    assert refusal(lambda: read(folder)) == f"{first} cannot be read: it does not exist."


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../../out.png", "it lies outside {folder}"),
        ("/", "it lies outside {folder}"),
        ("", "it is not a regular file"),
        ("pipe.png", "it is not a regular file"),
        ("x" * 5000 + ".jpg", "its name is too long"),
        ("a\0b.jpg", "embedded null byte"),
    ],
)
def test_pictures_that_are_not_in_the_folder(name: str, why: str, tmp_path: Path) -> None:
    folder = six_ds(tmp_path)
    picture(tmp_path / "out.png")
    os.mkfifo(folder / "images" / "pipe.png")
    text(list_of(folder, "B1_train.csv"), "image_links,id", f"{name},11")
    complaint = refusal(lambda: sized().load(tmp_path))
    assert complaint.startswith(f"{folder}: its training picture ")
    assert f" cannot be read: {why.format(folder=folder)}; unpack 6DS mid-scale facts again, or it cannot" in complaint


def test_pictures_that_are_missing(tmp_path: Path) -> None:
    folder = six_ds(tmp_path)
    (folder / "images" / "11-train.jpg").unlink()
    assert refusal(lambda: sized().load(tmp_path)).startswith(
        f"{folder}: it is unpacked only in part, 1 of its 8 training pictures are missing, '11-train.jpg'; unpack"
    )
    assert refusal(lambda: ENTRY.load(tmp_path)).startswith(f"{folder}: it has 8 classes and not 186; ")


def test_a_fact_has_one_id_and_one_task(tmp_path: Path) -> None:
    place = six_ds(tmp_path) / "splits" / "4tasks_random"
    text(place / "B1_facts.csv", "id,S,P,O", "11,person,ride,horse", "", "11,person,ride,mule")
    with pytest.raises(
        ForgetlessError, match=r"^line 4 of .*B1_facts\.csv has another fact of the id '11' than a line"
    ):
        read(tmp_path / "6ds")
    text(place / "B1_facts.csv", "id,S,P,O", "11,person,ride,horse", "12,person,ride,bike", "21,cow,,")
    with pytest.raises(ForgetlessError, match=r"has two facts of the id '21': 'cow,,' and 'dog,,'\.$"):
        read(tmp_path / "6ds")
    text(place / "B1_facts.csv", "id,S,P,O", "11,person,ride,horse", "12,dog,,")
    with pytest.raises(ForgetlessError, match=r"4tasks_random has 'dog,,' in several tasks\.$"):
        tasks(tmp_path / "6ds", "random")
