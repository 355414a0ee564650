"""The people of PASCAL VOC 2012's action classification (Everingham et al.), each cut out of their picture."""

from __future__ import annotations

import functools
from pathlib import Path
from xml.etree import ElementTree

import torch

from forgetless import files
from forgetless.errors import ForgetlessError, brief, quoted
from forgetless.lab.datasets.reading.entry import Entry, Parts, Source, lines
from forgetless.lab.datasets.reading.pictures import Crop, Pictures
from forgetless.model.parameters import listing

CLASSES = (
    *("jumping", "phoning", "playinginstrument", "reading", "ridingbike", "ridinghorse"),
    *("running", "takingphoto", "usingcomputer", "walking", "other"),
)

_MOST_BYTES = 1 << 20  # of an annotation


def read(folder: Path) -> Parts:
    """The official training part, and the official validation part for testing (the test labels are not public).

    People who do several things at once, or none that is known, belong to no class and are left out.
    """
    return _part(folder, "train"), _part(folder, "val")


def _part(folder: Path, split: str) -> Pictures:
    file = folder / "ImageSets" / "Action" / f"{split}.txt"
    parse = functools.lru_cache(4)(_objects)  # people of one picture follow each other
    crops: list[Crop] = []
    labels: list[int] = []
    for number, (name, index, *_) in lines(file, 2):
        objects = parse(folder / "Annotations" / f"{name}.xml")
        index = index.split()[0]
        if not (index.isascii() and index.isdecimal() and len(index) < 10) or not 1 <= int(index) <= len(objects):
            asked = f"{quoted(index)[1:-1]} of {quoted(name)[1:-1]}"
            raise ForgetlessError(f"{file} line {number} asks for object {asked}, which has {len(objects)}.")
        box, actions = _person(objects[int(index) - 1], f"object {index} of {name}.xml")
        if len(actions) == 1:
            crops.append(Crop(folder / "JPEGImages" / f"{name}.jpg", box))
            labels.append(actions[0])
    names = [f"JPEGImages/{crop.path.name}" for crop in crops]
    return Pictures(CLASSES, crops, names, torch.tensor(labels, dtype=torch.int64))


def _objects(path: Path) -> list[ElementTree.Element]:
    if not path.exists():
        raise ForgetlessError(f"{path} is missing: VOC 2012 is unpacked only in part.")
    content = files.read_bytes(path, _MOST_BYTES)
    try:
        if b"<!DOCTYPE" in content:  # nothing of VOC's declares entities, and nothing here expands them
            raise ValueError("it declares a document type")
        return ElementTree.fromstring(content).findall("object")
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise ForgetlessError(f"{path} is damaged: {brief(error)}.") from error


def _person(found: ElementTree.Element, where: str) -> tuple[tuple[int, int, int, int], list[int]]:
    """The box of a person, and what they do."""
    kind, actions, box = found.findtext("name"), found.find("actions"), found.find("bndbox")
    if kind != "person" or actions is None or box is None:
        raise ForgetlessError(f"{where} is no person with actions and a box, but {quoted(kind)}.")
    unknown = [each.tag for each in actions if each.tag not in CLASSES]
    if unknown:
        raise ForgetlessError(f"{where} has the action {listing(unknown)}, which VOC's {len(CLASSES)} do not include.")
    try:
        left, top, right, bottom = (int(float(box.findtext(side, "?"))) for side in ("xmin", "ymin", "xmax", "ymax"))
    except (ValueError, OverflowError) as error:
        raise ForgetlessError(f"the box of {where} is damaged: {brief(error)}.") from error
    # VOC counts pixels from 1, and both ends belong to the box.
    return (left - 1, top - 1, right, bottom), [CLASSES.index(each.tag) for each in actions if each.text == "1"]


ENTRY = Entry(
    "voc-actions",
    "VOC-2012 Actions",
    "VOCdevkit/VOC2012",
    "VOCdevkit/VOC2012/ with JPEGImages/, Annotations/ and ImageSets/Action/, as VOCtrainval_11-May-2012.tar unpacks",
    len(CLASSES),
    3102,
    3108,
    "research; the pictures are Flickr's, under its terms",
    "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
    read,
    (
        Source(
            "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
            "archives/VOCtrainval_11-May-2012.tar",
            "sha256:e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
            unpack="",
        ),
    ),
)
