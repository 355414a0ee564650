"""Folders of pictures: which are classes, which files are taken, and which are not touched."""

from __future__ import annotations

import os
import unicodedata
import warnings
from pathlib import Path

import pytest

from forgetless.errors import ForgetlessError
from forgetless.lab.datasets.reading.folder import read
from layouts import picture
from warned import said


def tree(folder: Path, *more: str) -> Path:
    for split in ("train", "test"):
        for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png", *more):
            picture(folder / split / name, 9)
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(ForgetlessError) as caught:
        read(folder)
    return str(caught.value)


def test_an_ordinary_tree_says_nothing(tmp_path: Path) -> None:
    tree(tmp_path, "a/deep/3.JPG", "b/._1.png", "a/.thumbnails/4.png")
    (tmp_path / "train" / "notes.txt").write_text("")
    (tmp_path / "train" / "a" / "notes.txt").write_text("")
    (tmp_path / "train" / ".DS_Store").write_text("")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train, test = read(tmp_path)
    assert train.classes == test.classes == ("a", "b")
    assert [Path(name).relative_to(tmp_path / "train").as_posix() for name in train.names] == [
        *("a/1.png", "a/2.png", "a/deep/3.JPG", "b/1.png", "b/2.png")
    ]


@pytest.mark.parametrize("stray", ["c", "__MACOSX/a", "@eaDir", ".ipynb_checkpoints", "lost+found"])
def test_empty_hidden_and_system_folders_are_no_classes_and_that_is_said_once(stray: str, tmp_path: Path) -> None:
    tree(tmp_path)
    for split in ("train", "test"):
        (tmp_path / split / stray).mkdir(parents=True)
        if stray != "c":
            picture(tmp_path / split / stray / "1.png")
    with pytest.warns(UserWarning, match="left out") as warned:
        train, test = read(tmp_path)
    assert train.classes == test.classes == ("a", "b")
    name = stray.partition("/")[0]
    assert said(warned) == [
        f"{tmp_path}: 'train/{name}/', 'test/{name}/' are left out: hidden, or no folders with pictures."
    ]


def test_pictures_outside_of_the_classes_are_named(tmp_path: Path) -> None:
    picture(tree(tmp_path) / "train" / "stray.png")
    with pytest.warns(UserWarning, match="'train/stray.png' are left out"):
        assert len(read(tmp_path)[0].labels) == 4


def test_a_class_that_is_empty_in_one_part_only(tmp_path: Path) -> None:
    picture(tree(tmp_path) / "test" / "c" / "1.png")
    (tmp_path / "train" / "c").mkdir()
    with pytest.warns(UserWarning, match="'train/c/' are left out"):
        assert refusal(tmp_path) == f"train and test of {tmp_path} differ in their classes: 'c'."


def test_names_are_compared_in_one_normal_form(tmp_path: Path) -> None:
    composed, parted = (unicodedata.normalize(form, "käfer") for form in ("NFC", "NFD"))
    for split, name in (("train", composed), ("test", parted), ("train", parted)):
        picture(tmp_path / split / name / f"{len(name)}.png")
        picture(tmp_path / split / "a" / "1.png")
        picture(tmp_path / split / "a" / "2.png")
    train, test = read(tmp_path)
    assert train.classes == test.classes == ("a", composed)
    assert train.labels.tolist() == [0, 0, 1, 1]


def test_a_class_with_a_single_picture_is_said(tmp_path: Path) -> None:
    (tree(tmp_path) / "train" / "b" / "2.png").unlink()
    with pytest.warns(UserWarning, match="single") as warned:
        read(tmp_path)
    assert said(warned) == [f"{tmp_path} has a single training picture of 'b', so that none is left to tune on."]


@pytest.mark.parametrize("suffix", [".avif", ".jfif", ".heic"])
def test_pictures_without_a_decoder_are_listed_so_that_they_are_named(suffix: str, tmp_path: Path) -> None:
    tree(tmp_path)
    for split in ("train", "test"):
        for number in (1, 2):
            (tmp_path / split / f"c/{number}{suffix}").parent.mkdir(exist_ok=True)
            (tmp_path / split / f"c/{number}{suffix}").write_bytes(b"x")
    assert read(tmp_path)[0].classes == ("a", "b", "c")


def test_links_stay_inside_and_lead_nowhere_twice(tmp_path: Path) -> None:
    folder = tree(tmp_path / "set")
    secret = picture(tmp_path / "outside" / "secret.png").parent
    (folder / "train" / "a" / "same.png").symlink_to("1.png")
    assert len(read(folder)[0].labels) == 5
    cases = {
        "train/a/loop.png": ("loop.png", "its links lead in a circle"),
        "train/a/up": ("..", "its links lead in a circle, or its folders are too deep."),
        "train/c": (secret, f"it lies outside {folder / 'train'}; copy it there, or name the folder that it lies in."),
        "train/a/out": (secret, f"it lies outside {folder / 'train'}; copy it there"),
        "train/a/out.png": (secret / "secret.png", f"it lies outside {folder / 'train'}."),
        "train/a/gone.png": ("gone", "it does not exist."),
    }
    for name, (target, sentence) in cases.items():
        (folder / name).symlink_to(target)
        assert sentence in refusal(folder), name
        (folder / name).unlink()
    os.mkfifo(folder / "train" / "a" / "pipe.png")
    assert refusal(folder) == f"{folder}/train/a/pipe.png cannot be read: it is not a regular file."
    (tmp_path / "link").symlink_to("set")
    (folder / "train" / "a" / "pipe.png").unlink()
    assert len(read(tmp_path / "link")[0].labels) == 5


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    assert "its name is too long" in refusal(tmp_path / ("x" * 300))
    assert "cannot hold a NUL" in refusal(Path("a\0b"))
