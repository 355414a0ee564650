"""Street View House Numbers, cropped digits (Netzer et al. 2011), through torchvision."""

from __future__ import annotations

from pathlib import Path

import torch

from forgetless.lab.datasets.reading.entry import Entry, Parts, Source, attempt, checked
from forgetless.lab.datasets.reading.pictures import Pictures

CLASSES = tuple("0123456789")
_FILES = "train_32x32.mat and test_32x32.mat as their authors published them"


def read(folder: Path) -> Parts:
    """The official parts, without the extra one."""
    return attempt(lambda: _read(folder), folder, _FILES, ("train_32x32.mat", "test_32x32.mat"))


def _read(folder: Path) -> Parts:
    from torchvision.datasets import SVHN

    def part(split: str) -> Pictures:
        found = SVHN(str(folder), split)
        labels = [int(label) for label in found.labels]
        checked(labels, CLASSES, f"{split}_32x32.mat")
        pictures = list(torch.from_numpy(found.data.copy()))
        names = [f"number {number} of {split}_32x32.mat" for number in range(len(labels))]
        return Pictures(CLASSES, pictures, names, torch.tensor(labels))

    return part("train"), part("test")


_URL = "http://ufldl.stanford.edu/housenumbers/"
ENTRY = Entry(
    "svhn",
    "SVHN",
    "svhn",
    f"svhn/ with {_FILES}",
    10,
    73257,
    26032,
    "non-commercial use only",
    _URL,
    read,
    (
        Source(
            f"{_URL}train_32x32.mat",
            "svhn/train_32x32.mat",
            "sha256:435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
        ),
        Source(
            f"{_URL}test_32x32.mat",
            "svhn/test_32x32.mat",
            "sha256:cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
        ),
    ),
)
