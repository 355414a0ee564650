"""Facts with boxes in two JSON files, each cut out of its picture."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fact_layouts import related, thing, vrd
from forgetless.errors import ForgetlessError
from forgetless.lab.datasets.reading.decoding import decode
from forgetless.lab.datasets.reading.pictures import Crop
from forgetless.lab.datasets.vrd import ENTRY, read
from layouts import Image, picture
from warned import said


def refusal(read: Callable[[], object]) -> str:
    with pytest.raises(ForgetlessError) as caught:
        read()
    return str(caught.value)


@pytest.mark.parametrize("places", [("json_dataset", "sg_dataset"), (".", "."), ("json_dataset", ".")])
def test_every_fact_is_cut_out_of_its_picture(places: tuple[str, str], tmp_path: Path) -> None:
    folder = vrd(tmp_path, places=places)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train, test = ENTRY.load(tmp_path)
    assert said(caught) == []
    assert train.classes == test.classes == ("bike,next to,street lamp", "person,next to,bike", "person,on,bike")
    inside = folder / places[1]
    # left, top, right and bottom around both: VRD writes top, bottom, left, right
    assert list(train.pictures) == [
        Crop(inside / "sg_train_images" / "a.png", (2, 1, 12, 9)),
        Crop(inside / "sg_train_images" / "a.png", (0, 0, 8, 6)),
        Crop(inside / "sg_train_images" / "b.png", (2, 1, 6, 5)),
    ]
    assert list(test.pictures) == [Crop(inside / "sg_test_images" / "c.png", (2, 1, 12, 9))]
    assert (train.labels.tolist(), test.labels.tolist()) == ([2, 0, 2], [1])
    assert list(train.names) == [f"sg_train_images/{name}" for name in ("a.png 1", "a.png 2", "b.png 1")]


def test_the_pixels_are_those_of_the_box(tmp_path: Path) -> None:
    folder = vrd(tmp_path, {"a.png": [related(thing(0, 3, 5, 10, 14), 0, thing(1, 4, 9, 8, 11))]})
    pixels = np.zeros((12, 20, 3), np.uint8)
    pixels[3:9, 8:14] = (200, 100, 50)
    Image.fromarray(pixels).save(folder / "sg_dataset" / "sg_train_images" / "a.png")
    cut = decode(read(folder)[0], 6)[0][0]
    assert torch.equal(cut, torch.tensor([200, 100, 50], dtype=torch.uint8).view(3, 1, 1).expand(3, 6, 6))


def test_one_box_with_two_facts_and_one_fact_twice(tmp_path: Path) -> None:
    folder = vrd(tmp_path, {"a.png": [related(), related(predicate=1), related()], "b.png": [related()]})
    with pytest.warns(UserWarning) as caught:  # noqa: PT030
        train, _ = read(folder)
    assert said(caught) == [
        "of the 4 training pictures 1 are there twice, and left out once; 1 are there under several facts, such as "
        "'person,on,bike', 'person,next to,bike', and stay under each."
    ]
    assert [train.classes[label] for label in train.labels.tolist()] == [
        "person,on,bike",
        "person,next to,bike",
        "person,on,bike",
    ]


def test_a_crop_that_is_trained_on_and_tested(tmp_path: Path) -> None:
    folder = vrd(tmp_path, {"a.png": [related()]}, {"c.png": [related()]})
    content = (folder / "sg_dataset" / "sg_train_images" / "a.png").read_bytes()
    (folder / "sg_dataset" / "sg_test_images" / "c.png").write_bytes(content)
    with pytest.warns(UserWarning, match=r"^1 test pictures are training pictures too\.$"):
        read(folder)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"predicate": 0, "object": thing(0, 1, 2, 1, 2)}, "{where} has no subject."),
        (related(subject=[1]), "{where} has no subject."),
        ({**related(), "object": None}, "{where} has no object."),
        (related(subject={"category": 0}), "the subject of {where} has the box None, not [top, bottom, left, right]."),
        (
            related(subject={"category": 0, "bbox": [1, 2, 3]}),
            "the subject of {where} has the box [1, 2, 3], not [top, bottom, left, right].",
        ),
        (
            related(object_={"category": 0, "bbox": [1, 2, 3, 4.5]}),
            "the object of {where} has the box [1, 2, 3, 4.5], not [top, bottom, left, right].",
        ),
        (
            related(object_={"category": 0, "bbox": [1, 2, 3, True]}),
            "the object of {where} has the box [1, 2, 3, True], not [top, bottom, left, right].",
        ),
        (
            related(object_={"category": 0, "bbox": [1, 2, 3, 1 << 20]}),
            "the object of {where} has the box [1, 2, 3, 1048576], not [top, bottom, left, right].",
        ),
        (
            related(object_={"category": 0, "bbox": "1234"}),
            "the object of {where} has the box '1234', not [top, bottom, left, right].",
        ),
        (related(subject=thing(3, 1, 2, 1, 2)), "the subject of {where} is number 3, outside 0…2."),
        (related(object_=thing(-1, 1, 2, 1, 2)), "the object of {where} is number -1, outside 0…2."),
        (related(object_=thing("1", 1, 2, 1, 2)), "the object of {where} is number '1', outside 0…2."),
        (related(object_=thing(None, 1, 2, 1, 2)), "the object of {where} is number None, outside 0…2."),
        (related(predicate=2), "the predicate of {where} is number 2, outside 0…1."),
        (related(predicate=True), "the predicate of {where} is number True, outside 0…1."),
        (related(predicate=0.0), "the predicate of {where} is number 0.0, outside 0…1."),
    ],
)
def test_facts_that_are_none(wrong: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    folder = vrd(tmp_path, test={"c.png": [related(), wrong]})
    where = f"fact 2 of 'c.png' in {folder}/json_dataset/annotations_test.json"
    assert refusal(lambda: read(folder)) == sentence.format(where=where)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("objects", '{"a": 1}', "must be a list, not {'a': 1}."),
        ("objects", '["a", ""]', "must be a length from 1 to 100, not ''."),
        ("predicates", "[1]", "must be text, not 1."),
        ("annotations_test", "[]", "must be an object, not []."),
        ("annotations_test", '{"c.png": {}}', "must be a list, not {}."),
        ("annotations_test", '{"c.png": [3]}', "must be an object, not 3."),
        ("annotations_train", "{", "cannot be read as JSON: "),
        ("annotations_train", '{"a": [], "a": []}', "cannot be read as JSON: the key 'a' is there twice."),
        ("annotations_train", "{}", "there are no training pictures."),
    ],
)
def test_lists_that_are_damaged(name: str, content: str, sentence: str, tmp_path: Path) -> None:
    folder = vrd(tmp_path)
    (folder / "json_dataset" / f"{name}.json").write_text(content)
    assert sentence in refusal(lambda: read(folder))


def test_names_that_make_no_related(tmp_path: Path) -> None:
    folder = vrd(tmp_path)
    (folder / "json_dataset" / "objects.json").write_text(json.dumps(["a,b", " ", "c"]))
    where = f"fact 1 of 'a.png' in {folder}/json_dataset/annotations_train.json"
    assert refusal(lambda: read(folder)) == f"{where} is no fact: its subject is 'a,b'."


@pytest.mark.parametrize("name", ["objects", "predicates", "annotations_train", "annotations_test"])
def test_lists_that_are_missing_or_no_files(name: str, tmp_path: Path) -> None:
    folder = vrd(tmp_path)
    path = folder / "json_dataset" / f"{name}.json"
    path.unlink()
    assert refusal(lambda: read(folder)) == f"{path} cannot be read: it does not exist."
    os.mkfifo(path)
    assert refusal(lambda: read(folder)) == f"{path} cannot be read: it is a pipe or a device, not a regular file."


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../../../out.png", "it lies outside {folder}"),
        ("{root}/out.png", "it lies outside {folder}"),
        ("pipe.png", "it is not a regular file"),
        ("x\0y", "embedded null byte"),
        ("y" * 5000, "its name is too long"),
    ],
)
def test_pictures_that_are_not_in_the_folder(name: str, why: str, tmp_path: Path) -> None:
    picture(tmp_path / "out.png")
    folder = vrd(tmp_path, {name.format(root=tmp_path): [related()]})
    os.mkfifo(folder / "sg_dataset" / "sg_train_images" / "pipe.png")
    complaint = refusal(lambda: ENTRY.load(tmp_path))
    assert complaint.startswith(f"{folder}: its training picture 'sg_train_images/")
    assert f" cannot be read: {why.format(folder=folder)}; unpack Visual Relationship Detection again" in complaint


def test_pictures_that_are_missing_and_boxes_outside(tmp_path: Path) -> None:
    vrd(tmp_path, {"gone.png": [related()]})
    assert "it is unpacked only in part, 1 of its 1 training pictures are missing, 'sg_train_images/gone.png 1'; " in (
        refusal(lambda: ENTRY.load(tmp_path))
    )
    far = {"a.png": [related(thing(0, 90, 91, 90, 91), 0, thing(1, 95, 96, 95, 96))]}
    train, _ = read(vrd(tmp_path, far))
    assert refusal(lambda: decode(train, 4)).startswith(
        "sg_train_images/a.png 1 is no picture that can be read: the box (90, 90, 96, 96) lies outside its 12 × 10 "
        "pixels."
    )
