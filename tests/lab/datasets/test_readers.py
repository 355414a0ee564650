"""Every reader on a small tree in the layout of the original, whole and damaged."""

# ruff: noqa: E501 (tables of sentences)

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import layouts
from forgetless.errors import ForgetlessError
from forgetless.lab.datasets import (
    CATALOG,
    aircraft100,
    cars196,
    chars74k,
    cifar100,
    cub200,
    flowers102,
    indoor67,
    svhn,
    tiny_imagenet,
    voc_actions,
)
from forgetless.lab.datasets.reading.decoding import decode
from forgetless.lab.datasets.reading.entry import Entry
from forgetless.lab.datasets.reading.pictures import Crop
from layouts import person, picture, text


def refusal(read: Callable[[], object]) -> str:
    with pytest.raises(ForgetlessError) as caught:
        read()
    return str(caught.value)


def replace(path: Path, old: str, new: str) -> None:
    content = path.read_text(encoding="utf-8")
    assert old in content
    path.write_text(content.replace(old, new), encoding="utf-8")


def sized(entry: Entry, classes: int, train: int, test: int) -> Entry:
    """The entry, as if the original were as small as the tree."""
    return dataclasses.replace(entry, classes=classes, train=train, test=test)


def test_flowers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = layouts.flowers102(tmp_path, monkeypatch)
    train, test = sized(flowers102.ENTRY, 102, 4, 3).load(tmp_path)
    assert train.labels.tolist() == [0, 1, 101, 2]  # the official training and validation parts
    assert test.labels.tolist() == [101, 0, 1]
    assert test.pictures[0] == folder / "jpg" / "image_00006.jpg"
    assert len(train.classes) == 102
    (folder / "setid.mat").write_bytes((folder / "setid.mat").read_bytes() + b"x")
    assert refusal(lambda: flowers102.read(folder)) == (
        f"{folder} is not complete or damaged (Dataset not found or corrupted. You can use download=True to download it); "
        "there must be jpg/, imagelabels.mat and setid.mat as their authors published them."
    )


def test_scenes(tmp_path: Path) -> None:
    folder = layouts.indoor67(tmp_path)
    train, test = sized(indoor67.ENTRY, 2, 2, 1).load(tmp_path)
    assert train.classes == ("airport_inside", "kitchen")
    assert (train.labels.tolist(), test.labels.tolist()) == ([1, 0], [1])
    assert train.pictures[0] == folder / "Images" / "kitchen" / "a b.jpg"
    replace(folder / "TestImages.txt", "kitchen/", "cellar/")
    assert refusal(lambda: indoor67.read(folder)) == (
        f"{folder}/TestImages.txt line 1 has the class 'cellar', which is no folder of Images/."
    )
    shutil.rmtree(folder / "Images")
    assert refusal(lambda: indoor67.read(folder)) == f"{folder} is unpacked only in part: it has no folder Images/."


def test_birds(tmp_path: Path) -> None:
    layouts.cub200(tmp_path)
    train, test = sized(cub200.ENTRY, 2, 2, 1).load(tmp_path)
    assert train.classes == ("001.Black_footed_Albatross", "002.Auk")
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1], [0])
    assert train.names == ["001.Black_footed_Albatross/B_0009.jpg", "002.Auk/A_1.jpg"]
    assert decode(train, 4)[0][:, 0, 0, 0].tolist() == pytest.approx([100, 150], abs=4)


@pytest.mark.parametrize(
    ("file", "old", "new", "sentence"),
    [
        ("image_class_labels.txt", "3 2", "3 3", "image_class_labels.txt, picture 3, has the class 3, which is outside 1…2."),
        ("image_class_labels.txt", "3 2", "3 0", "image_class_labels.txt, picture 3, has the class 0, which is outside 1…2."),
        ("image_class_labels.txt", "3 2", "3 x", "image_class_labels.txt, picture 3, has the class x, which is outside 1…2."),
        ("image_class_labels.txt", "3 2", "3", "image_class_labels.txt is damaged: line 3 has 1 fields and not 2."),
        ("train_test_split.txt", "2 1\n", "", "train_test_split.txt and images.txt do not name the same pictures: 1 are in "
         "one of them only, such as number 2."),
        ("train_test_split.txt", "2 1", "2 2", "train_test_split.txt is damaged: it has a part '2', not 0 or 1."),
    ],
)  # fmt: skip
def test_birds_whose_lists_are_damaged(tmp_path: Path, file: str, old: str, new: str, sentence: str) -> None:
    folder = layouts.cub200(tmp_path)
    replace(folder / file, old, new)
    assert refusal(lambda: cub200.read(folder)) == f"{folder}/{sentence}"


def test_a_list_that_is_missing(tmp_path: Path) -> None:
    folder = layouts.cub200(tmp_path)
    (folder / "classes.txt").unlink()
    assert refusal(lambda: cub200.read(folder)) == (
        f"the pictures are listed in a file that cannot be read: {folder}/classes.txt cannot be read: it does not exist."
    )


def test_cars(tmp_path: Path) -> None:
    folder = layouts.cars196(tmp_path)
    train, test = sized(cars196.ENTRY, 2, 3, 3).load(tmp_path)
    assert train.classes == ("AM General Hummer SUV 2000", "Acura RL Sedan 2012")
    assert train.labels.tolist() == test.labels.tolist() == [1, 0, 1]
    assert test.pictures[2] == folder / "cars_test" / "00003.jpg"
    (folder / "cars_test_annos_withlabels.mat").unlink()
    assert refusal(lambda: cars196.read(folder)).startswith(
        f"{folder} is not complete or damaged (Dataset not found); there"
    )


def test_aircraft(tmp_path: Path) -> None:
    folder = layouts.aircraft100(tmp_path)
    train, test = sized(aircraft100.ENTRY, 2, 2, 1).load(tmp_path)
    assert train.classes == ("707-320", "An-12 B")
    assert (train.labels.tolist(), test.labels.tolist()) == ([1, 0], [1])
    replace(folder / "data" / "images_variant_test.txt", "An-12 B", "Concorde")
    assert refusal(lambda: aircraft100.read(folder)).startswith(
        f"{folder} is not complete or damaged ('Concorde'); there"
    )


def test_actions_are_people_cut_out_who_do_one_thing(tmp_path: Path) -> None:
    folder = layouts.voc_actions(tmp_path)
    train, test = sized(voc_actions.ENTRY, 11, 2, 1).load(tmp_path)
    assert [train.classes[label] for label in train.labels] == ["jumping", "walking"]
    assert [test.classes[label] for label in test.labels] == ["other"]
    file = folder / "JPEGImages" / "2010_1.jpg"
    assert list(train.pictures) == [Crop(file, (1, 2, 9, 8)), Crop(file, (0, 0, 12, 10))]
    jumper = decode(train, 4)[0][0].float()
    assert torch.allclose(
        jumper, torch.tensor([200.0, 100.0, 50.0]).view(3, 1, 1), atol=12
    )  # nothing of the black around


@pytest.mark.parametrize(
    ("people", "listed", "sentence"),
    [
        (person("other"), "2010_2  2", "{folder}/ImageSets/Action/val.txt line 1 asks for object 2 of 2010_2, which has 1."),
        (person("other"), "2010_2  0", "{folder}/ImageSets/Action/val.txt line 1 asks for object 0 of 2010_2, which has 1."),
        (person("other", name="dog"), "2010_2  1", "object 1 of 2010_2.xml is no person with actions and a box, but 'dog'."),
        (person("other").replace("other>", "flying>"), "2010_2  1",
         "object 1 of 2010_2.xml has the action 'flying', which VOC's 11 do not include."),
        (person("other").replace("<ymax>8</ymax>", ""), "2010_2  1",
         "the box of object 1 of 2010_2.xml is damaged: could not convert string to float: '?'."),
        (person("other"), "2010_3  1", "{folder}/Annotations/2010_3.xml is missing: VOC 2012 is unpacked only in part."),
        ("<object>", "2010_2  1", "{folder}/Annotations/2010_2.xml is damaged: mismatched tag: line 1, column 22."),
    ],
)  # fmt: skip
def test_actions_that_are_damaged(tmp_path: Path, people: str, listed: str, sentence: str) -> None:
    folder = layouts.voc_actions(tmp_path)
    text(folder / "Annotations" / "2010_2.xml", f"<annotation>{people}</annotation>")
    text(folder / "ImageSets" / "Action" / "val.txt", listed)
    assert refusal(lambda: voc_actions.read(folder)) == sentence.format(folder=folder)


@pytest.mark.parametrize("kind", ["Img", "Fnt"])
def test_letters(tmp_path: Path, kind: str) -> None:
    layouts.chars74k(tmp_path, kind, 8)
    train, test = chars74k.ENTRY.load(tmp_path)
    assert "".join(train.classes) == layouts.LETTERS
    assert len(train.labels) + len(test.labels) == 52 * 8
    assert len(test.labels) == round(52 * 8 * 1150 / 8000)
    assert set(test.labels.tolist()) == set(train.labels.tolist()) == set(range(52))
    assert not set(train.names) & set(test.names)
    assert chars74k.read(tmp_path / "chars74k")[1].names == test.names
    wanted = {label + 11 for label in range(52)}  # Sample001 … Sample010 are digits
    assert {int(name.split("Sample")[1][:3]) for name in train.names} == wanted


def test_letters_that_are_unpacked_in_part(tmp_path: Path) -> None:
    folder = layouts.chars74k(tmp_path)
    shutil.rmtree(folder / "English/Img/BadImg/Bmp/Sample062")
    assert refusal(lambda: chars74k.read(folder)) == (
        f"{folder}/English/Img/BadImg/Bmp is unpacked only in part: it has no folder Sample062, 'z'."
    )
    for gone in ("BadImg", "GoodImg"):
        layouts.chars74k(tmp_path)
        shutil.rmtree(folder / "English" / "Img" / gone)
        assert refusal(lambda: chars74k.read(folder)) == (
            f"{folder} is unpacked only in part: it has no English/Img/{gone}/Bmp."
        )
    shutil.rmtree(folder / "English")
    assert refusal(lambda: chars74k.read(folder)) == (
        f"{folder} is unpacked only in part: it has neither English/Img nor English/Fnt."
    )


def test_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = layouts.svhn(tmp_path, monkeypatch)
    train, test = sized(svhn.ENTRY, 10, 3, 2).load(tmp_path)
    assert [train.classes[label] for label in train.labels] == ["1", "0", "9"]
    assert test.labels.tolist() == [0, 2]
    inputs = decode(train, 8)[0]
    assert inputs.shape == (3, 3, 8, 8)
    assert inputs[:, 0, 0, 0].tolist() == [20, 200, 180]
    (folder / "test_32x32.mat").unlink()
    assert refusal(lambda: svhn.read(folder)).startswith(f"{folder} is not complete or damaged (Dataset not found")


def test_a_root_that_lacks_a_set_says_which_and_how_to_get_it(tmp_path: Path) -> None:
    assert refusal(lambda: indoor67.ENTRY.load(tmp_path)) == (
        f"{tmp_path} lacks MIT Indoor-67: indoor67/ with Images/CLASS/*.jpg from indoorCVPR_09.tar, TrainImages.txt and "
        f"TestImages.txt; `forgetless data fetch indoor67 --root {tmp_path}` downloads it "
        "(https://web.mit.edu/torralba/www/indoor.html)."
    )
    assert refusal(lambda: cars196.ENTRY.load(tmp_path)).endswith(
        "; it cannot be downloaded directly: its authors' page is gone, and the discussion there tells where copies are kept "
        "(https://github.com/pytorch/vision/issues/7545)."
    )


@pytest.mark.parametrize("name", CATALOG)
def test_every_set_says_that_it_is_missing(tmp_path: Path, name: str) -> None:
    assert refusal(lambda: CATALOG[name].load(tmp_path)).startswith(f"{tmp_path} lacks {CATALOG[name].title}: ")


@pytest.mark.parametrize("name", [name for name, entry in CATALOG.items() if entry.train])
def test_every_set_with_too_few_files_is_refused(tmp_path: Path, name: str) -> None:
    CATALOG[name].path(tmp_path).mkdir(parents=True)
    refusal(lambda: CATALOG[name].load(tmp_path))


def test_missing_pictures_and_other_counts_are_refused(tmp_path: Path) -> None:
    folder = layouts.cub200(tmp_path)
    how = (
        f"; unpack CUB-200-2011 again, or `forgetless data fetch cub200 --root {tmp_path}` downloads it "
        "(https://www.vision.caltech.edu/datasets/cub_200_2011/)."
    )
    assert refusal(lambda: cub200.ENTRY.load(tmp_path)) == f"{folder}: it has 2 classes and not 200{how}"
    assert refusal(lambda: sized(cub200.ENTRY, 2, 3, 1).load(tmp_path)) == (
        f"{folder}: it has 2 training pictures and not 3{how}"
    )
    (folder / "images" / "002.Auk" / "A_1.jpg").unlink()
    assert refusal(lambda: sized(cub200.ENTRY, 2, 2, 1).load(tmp_path)) == (
        f"{folder}: it is unpacked only in part, 1 of its 2 training pictures are missing, '002.Auk/A_1.jpg'{how}"
    )


def test_the_listing_tells_other_files_labels_and_classes(tmp_path: Path) -> None:
    folder = layouts.cub200(tmp_path)
    first = cub200.ENTRY.sum(cub200.read(folder))
    assert first == cub200.ENTRY.sum(cub200.read(folder))
    for file, old, new in (
        ("image_class_labels.txt", "2 1", "2 2"),
        ("images.txt", "A_1", "A_2"),
        ("classes.txt", "Auk", "Gull"),
        ("train_test_split.txt", "3 1", "3 0"),
    ):
        replace(folder / file, old, new)
        assert cub200.ENTRY.sum(cub200.read(folder)) != first
        replace(folder / file, new, old)
    picture(folder / "images" / "002.Auk" / "A_1.jpg", 7)
    assert cub200.ENTRY.sum(cub200.read(folder)) == first  # a listing, not a checksum of contents


def test_cifar100(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = layouts.cifar100(tmp_path, monkeypatch)
    train, test = sized(cifar100.ENTRY, 100, 200, 100).load(tmp_path)
    assert train.classes[99] == "kind 99"
    assert train.labels.tolist() == [*range(100)] * 2
    assert decode(test, 8)[0][7].unique().tolist() == [7]
    (folder / "test").write_bytes(b"x")
    assert refusal(lambda: cifar100.read(folder)).startswith(f"{folder} is not complete or damaged (Dataset not found")


def test_tiny_imagenet(tmp_path: Path) -> None:
    folder = layouts.tiny_imagenet(tmp_path)
    train, test = sized(tiny_imagenet.ENTRY, 3, 6, 3).load(tmp_path)
    assert train.classes == ("n00000002", "n00000001", "n00000000")  # in the order of wnids.txt
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 0, 1, 1, 2, 2], [2, 1, 0])
    assert train.names[0] == "train/n00000002/images/n00000002_0.JPEG"
    replace(folder / "val" / "val_annotations.txt", "n00000001", "n00000009")
    assert refusal(lambda: tiny_imagenet.read(folder)) == (
        f"{folder}/val/val_annotations.txt has the class 'n00000009' for val_1.JPEG, which is not in wnids.txt."
    )
    shutil.rmtree(folder / "val" / "images")
    replace(folder / "val" / "val_annotations.txt", "n00000009", "n00000001")
    assert refusal(lambda: sized(tiny_imagenet.ENTRY, 3, 6, 3).load(tmp_path)).startswith(
        f"{folder}: it is unpacked only in part, 3 of its 3 test pictures are missing, "
    )
