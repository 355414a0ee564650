"""Tiny ImageNet (Le and Yang 2015): 200 of ImageNet's classes at 64 × 64 pixels."""

from __future__ import annotations

from pathlib import Path

import torch

from forgetless.errors import ForgetlessError, quoted
from forgetless.lab.datasets.reading.entry import Entry, Parts, Source, lines
from forgetless.lab.datasets.reading.pictures import Pictures


def read(folder: Path) -> Parts:
    """The training part and, for a test part, the validation part: the labels of the official test part are secret."""
    classes = tuple(name for _, (name,) in lines(folder / "wnids.txt", 1))
    train = [(path, name) for name in classes for path in sorted((folder / "train" / name / "images").glob("*.JPEG"))]
    file = folder / "val" / "val_annotations.txt"
    test = [(folder / "val" / "images" / name, kind) for _, (name, kind, *_) in lines(file, 6)]

    def part(found: list[tuple[Path, str]]) -> Pictures:
        known = {name: label for label, name in enumerate(classes)}
        for path, name in found:
            if name not in known:
                raise ForgetlessError(
                    f"{file} has the class {quoted(name)} for {quoted(path.name)[1:-1]}, which is not in wnids.txt."
                )
        paths = [path for path, _ in found]
        names = [str(path.relative_to(folder)) for path in paths]
        return Pictures(classes, paths, names, torch.tensor([known[name] for _, name in found], dtype=torch.int64))

    return part(train), part(test)


ENTRY = Entry(
    "tiny-imagenet",
    "Tiny ImageNet",
    "tiny-imagenet-200",
    "tiny-imagenet-200/ with train/, val/ and wnids.txt, as tiny-imagenet-200.zip unpacks",
    200,
    100000,
    10000,
    "ImageNet's terms: non-commercial research and education only",
    "http://cs231n.stanford.edu/",
    read,
    (
        Source(
            "https://cs231n.stanford.edu/tiny-imagenet-200.zip",
            "archives/tiny-imagenet-200.zip",
            "sha256:6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821",
            unpack="",
        ),
    ),
)
