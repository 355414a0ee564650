"""CIFAR-100 (Krizhevsky 2009), through torchvision."""

from __future__ import annotations

from pathlib import Path

import torch

from forgetless.lab.datasets.reading.entry import Entry, Parts, Source, attempt, checked
from forgetless.lab.datasets.reading.pictures import Pictures

_FILES = "train, test and meta as cifar-100-python.tar.gz unpacks"


def read(folder: Path) -> Parts:
    """The official parts, under the 100 fine labels."""
    return attempt(lambda: _read(folder), folder, _FILES, ("train", "test", "meta"))


def _read(folder: Path) -> Parts:
    from torchvision.datasets import CIFAR100

    def part(train: bool) -> Pictures:
        found = CIFAR100(str(folder.parent), train)  # verifies the checksums before it unpickles
        classes, name = tuple(found.classes), "train" if train else "test"
        checked(found.targets, classes, name)
        pictures = list(torch.from_numpy(found.data).permute(0, 3, 1, 2))
        names = [f"number {number} of {name}" for number in range(len(pictures))]
        return Pictures(classes, pictures, names, torch.tensor(found.targets))

    return part(True), part(False)


_URL = "https://www.cs.toronto.edu/~kriz/"
ENTRY = Entry(
    "cifar100",
    "CIFAR-100",
    "cifar-100-python",
    f"cifar-100-python/ with {_FILES}",
    100,
    50000,
    10000,
    "no license is stated; used for research",
    f"{_URL}cifar.html",
    read,
    (
        Source(
            f"{_URL}cifar-100-python.tar.gz",
            "archives/cifar-100-python.tar.gz",
            "sha256:85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
            unpack="",
        ),
    ),
)
