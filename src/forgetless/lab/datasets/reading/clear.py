"""CLEAR's archives: pictures of the same classes in buckets of time, each bucket a task.

Lin, Shi, Pathak, Ramanan, "The CLEAR Benchmark: Continual LEArning on Real-World Imagery", NeurIPS 2021 datasets track.
"""

from __future__ import annotations

from pathlib import Path

import torch

from forgetless import files
from forgetless.errors import ForgetlessError, quoted
from forgetless.lab.datasets.reading.pictures import Pictures

PARTS = ("train", "test")
BACKGROUND = "BACKGROUND"


def buckets(folder: Path) -> list[tuple[str, Pictures, Pictures]]:
    """The buckets in the order of time: name, training and test pictures.

    The layout, of `clear10-train.zip` and `clear10-test.zip` unpacked beside each other: `train/` and `test/`, each
    with `class_names.txt`, a class a line; `labeled_metadata.json`, bucket → class → the path of a JSON file; and
    these files, picture's id → {"IMG_PATH": path}, all paths relative to `train/` or `test/`. The class BACKGROUND, of
    everything else, is left out: without it there are ten classes of 300 training pictures a bucket in CLEAR-10.

    Args:
        folder: the one that holds `train/` and `test/`.

    Raises:
        ForgetlessError: a file is missing or holds something else, or the parts differ in their buckets or classes.
    """
    found = {part: _part(folder / part) for part in PARTS}
    train, test = found["train"], found["test"]
    if train.keys() != test.keys():
        raise ForgetlessError(f"{folder} has the buckets {sorted(train)} to train on and {sorted(test)} to test on.")
    order = sorted(train, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))
    for name in order:
        if train[name].classes != test[name].classes:
            raise ForgetlessError(f"{folder} has different classes to train and to test on.")
    return [(name, train[name], test[name]) for name in order]


def _part(folder: Path) -> dict[str, Pictures]:
    file = folder / "labeled_metadata.json"
    listed = files.read_json(file)
    with files.opened(folder / "class_names.txt") as text:
        lines = text.read().decode("utf-8", "replace").splitlines()
    classes = tuple(line.strip() for line in lines if line.strip() and line.strip() != BACKGROUND)
    if not classes or not isinstance(listed, dict) or not listed:
        raise ForgetlessError(f"{file} lists no bucket, or {folder / 'class_names.txt'} no class.")
    found = {}
    for bucket, inside in listed.items():
        pictures, names, labels = list[Path](), list[str](), list[int]()
        for label, name in enumerate(classes):
            path = inside.get(name) if isinstance(inside, dict) else None
            if not isinstance(path, str):
                raise ForgetlessError(f"{file} names no file for the class {quoted(name)} of bucket {quoted(bucket)}.")
            for place in _paths(_inside(folder, path, file), folder):
                pictures.append(place)
                names.append(str(place.relative_to(folder)))
                labels.append(label)
        found[bucket] = Pictures(classes, pictures, names, torch.tensor(labels, dtype=torch.int64))
    return found


def _paths(file: Path, folder: Path) -> list[Path]:
    """The pictures that a metadata file lists."""
    content = files.read_json(file)
    paths = (
        [each.get("IMG_PATH") if isinstance(each, dict) else None for each in content.values()]
        if isinstance(content, dict)
        else [None]
    )
    if not all(isinstance(path, str) for path in paths):
        raise ForgetlessError(f"{file} does not list pictures by their IMG_PATH.")
    return [_inside(folder, str(path), file) for path in paths]


def _inside(folder: Path, path: str, file: Path) -> Path:
    """A path of an archive, which must not lead out of it."""
    place = folder / path
    if not place.resolve().is_relative_to(folder.resolve()):
        raise ForgetlessError(f"{file} leads out of {folder}: {quoted(path)}.")
    return place
