"""6DS and Visual Relationship Detection in the layouts in which they unpack, small."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from layouts import picture, text

#: The facts of 6DS: the number of a fact → its parts; two for each task.
NUMBERED = {
    "11": "person,ride,horse",
    "12": "person,ride,bike",
    "21": "dog,,",
    "22": "cat,sit,",
    "31": "woman,play,violin",
    "32": "man,play,flute",
    "41": "person,run,",
    "42": "person,jump,",
}


def six_ds(root: Path, splits: tuple[str, ...] = ("random", "semantic")) -> Path:
    """A training and a test picture of every fact; the semantic split has the tasks of the other in reverse."""
    folder = root / "6ds"
    for number, fact in enumerate(NUMBERED, 1):
        picture(folder / "images" / f"{fact}-train.jpg", 10 * number)
        picture(folder / "images" / "sub folder" / f"{fact}-test.png", 10 * number + 5)
    for split in splits:
        for task in range(1, 5):
            place, chosen = folder / "splits" / f"4tasks_{split}", str(task if split == "random" else 5 - task)
            mine = [fact for fact in NUMBERED if fact[0] == chosen]
            text(place / f"B{task}_facts.csv", "id,S,P,O", *(f"{fact},{NUMBERED[fact]}" for fact in mine))
            text(place / f"B{task}_train.csv", "x,image_links,id", *(f"0,'{fact}-train.jpg',{fact}" for fact in mine))
            # These are PNG files under names that end in .jpg, as some of the originals are.
            text(place / f"B{task}_test.csv", "id,image_links", *(f"{f},sub folder/{f}-test.jpg" for f in mine))
    return folder


OBJECTS, PREDICATES = ["person", "Bike", "street  lamp"], ["on", "next to"]


def thing(category: Any, top: int, bottom: int, left: int, right: int) -> dict[str, Any]:
    """An object of VRD; its box is written top, bottom, left, right."""
    return {"category": category, "bbox": [top, bottom, left, right]}


def related(subject: Any = None, predicate: Any = 0, object_: Any = None) -> dict[str, Any]:
    """A fact of VRD: by default a person on a bike."""
    subject, object_ = subject or thing(0, 1, 5, 2, 6), object_ or thing(1, 3, 9, 4, 12)
    return {"subject": subject, "predicate": predicate, "object": object_}


TRAIN = {
    "a.png": [related(), related(thing(1, 0, 2, 0, 2), 1, thing(2, 4, 6, 7, 8))],
    "without facts.png": [],
    "b.png": [related(object_=thing(1, 2, 3, 3, 4))],
}
TEST = {"c.png": [related(predicate=1)]}


def vrd(
    root: Path, train: Any = TRAIN, test: Any = TEST, places: tuple[str, str] = ("json_dataset", "sg_dataset")
) -> Path:
    """Three pictures with these facts; `places` are the folders of the lists and of the pictures."""
    folder = root / "vrd"
    lists = {"objects": OBJECTS, "predicates": PREDICATES, "annotations_train": train, "annotations_test": test}
    for name, content in lists.items():
        path = folder / places[0] / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    for number, name in enumerate(("train/a", "train/b", "test/c"), 1):
        part, _, name = name.partition("/")
        picture(folder / places[1] / f"sg_{part}_images" / f"{name}.png", 40 * number)
    return folder
