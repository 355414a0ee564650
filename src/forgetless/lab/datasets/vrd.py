"""Visual Relationship Detection (Lu et al., ECCV 2016): facts with boxes in 5,000 photographs.

A sample is one fact in its picture, cut out: the smallest box around its subject and its object. Other sets in the same
form (two JSON files of subject, predicate and object with boxes, and two of names) are read in the same way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from forgetless import files
from forgetless.errors import ForgetlessError, quoted
from forgetless.lab.datasets.reading.entry import Entry, Parts
from forgetless.lab.datasets.reading.fact import Fact, made
from forgetless.lab.datasets.reading.facts import labeled
from forgetless.lab.datasets.reading.pictures import Crop, Picture

_FOLDERS = {"train": "sg_train_images", "test": "sg_test_images"}
_Names = list[Annotated[str, files.Between(1, 100)]]
_Annotations = dict[str, list[dict[str, Any]]]


def read(folder: Path) -> Parts:
    """The facts of the training and the test pictures."""
    place = folder / "json_dataset" if (folder / "json_dataset").is_dir() else folder
    predicates, objects = (_names(place / f"{what}.json") for what in ("predicates", "objects"))
    return labeled(folder, *(_part(folder, place, part, predicates, objects) for part in ("train", "test")))


def _names(path: Path) -> list[str]:
    found: list[str] = files.decoded(files.read_json(path), _Names, path)
    return found


def _part(
    folder: Path, place: Path, part: str, predicates: list[str], objects: list[str]
) -> tuple[list[Picture], list[str], list[Fact]]:
    path = place / f"annotations_{part}.json"
    annotations: _Annotations = files.decoded(files.read_json(path), _Annotations, path)
    inside = folder / "sg_dataset" if (folder / "sg_dataset").is_dir() else folder
    pictures: list[Picture] = []
    names, facts = [], []
    for name, found in annotations.items():
        for number, each in enumerate(found, 1):
            where = f"fact {number} of {quoted(name)} in {path}"
            subject, object_ = _thing(each, "subject", objects, where), _thing(each, "object", objects, where)
            predicate = _named(each.get("predicate"), predicates, f"the predicate of {where}")
            boxes = list(zip(subject[1], object_[1], strict=True))
            box = (min(boxes[0]), min(boxes[1]), max(boxes[2]), max(boxes[3]))
            pictures.append(Crop(inside / _FOLDERS[part] / name, box))
            names.append(f"{_FOLDERS[part]}/{name} {number}")
            facts.append(made((subject[0], predicate, object_[0]), where))
    return pictures, names, facts


def _thing(each: dict[str, Any], role: str, objects: list[str], where: str) -> tuple[str, tuple[int, int, int, int]]:
    """The name of a subject or an object, and its box (left, top, right, bottom)."""
    thing = each.get(role)
    if not isinstance(thing, dict):
        raise ForgetlessError(f"{where} has no {role}.")
    box = thing.get("bbox")
    if not (isinstance(box, list) and len(box) == 4 and all(type(side) is int and abs(side) < 1 << 20 for side in box)):
        raise ForgetlessError(f"the {role} of {where} has the box {quoted(box)}, not [top, bottom, left, right].")
    top, bottom, left, right = box
    return _named(thing.get("category"), objects, f"the {role} of {where}"), (left, top, right, bottom)


def _named(number: object, names: list[str], where: str) -> str:
    if type(number) is not int or not 0 <= number < len(names):
        raise ForgetlessError(f"{where} is number {quoted(number)}, outside 0…{len(names) - 1}.")
    return names[number]


ENTRY = Entry(
    "vrd",
    "Visual Relationship Detection",
    "vrd",
    "vrd/ with json_dataset/ (annotations_train.json, annotations_test.json, objects.json, predicates.json) and "
    "sg_dataset/ (sg_train_images/, sg_test_images/)",
    None,
    None,
    None,
    "research; the pictures are Flickr's, under its terms",
    "https://cs.stanford.edu/people/ranjaykrishna/vrd/",
    read,
    otherwise="the page links json_dataset.zip and the pictures, sg_dataset.zip",
)
