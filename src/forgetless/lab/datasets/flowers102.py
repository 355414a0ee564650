"""Oxford Flowers-102 (Nilsback and Zisserman 2008), through torchvision."""

from __future__ import annotations

from pathlib import Path

import torch

from forgetless.lab.datasets.reading.entry import Entry, Parts, Source, attempt, checked
from forgetless.lab.datasets.reading.pictures import Pictures

_CLASSES = 102
_FILES = "jpg/, imagelabels.mat and setid.mat as their authors published them"


def read(folder: Path) -> Parts:
    """Train: the official training and validation parts together; test: the official one."""
    return attempt(lambda: _read(folder), folder, _FILES, ("imagelabels.mat", "setid.mat"))


def _read(folder: Path) -> Parts:
    from torchvision.datasets import Flowers102

    classes = tuple(getattr(Flowers102, "classes", ())) or tuple(str(number + 1) for number in range(_CLASSES))
    parts = [Flowers102(str(folder.parent), split) for split in ("train", "val", "test")]

    def joined(*some: Flowers102) -> Pictures:
        paths = [Path(path) for part in some for path in part._image_files]
        labels = [int(label) for part in some for label in part._labels]
        checked(labels, classes, str(folder / "imagelabels.mat"))
        return Pictures(classes, paths, [f"jpg/{path.name}" for path in paths], torch.tensor(labels))

    return joined(*parts[:2]), joined(parts[2])


_URL = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
ENTRY = Entry(
    "flowers102",
    "Oxford Flowers-102",
    "flowers-102",
    f"flowers-102/ with {_FILES}",
    _CLASSES,
    2040,
    6149,
    "no license is stated; used for research",
    _URL,
    read,
    (
        Source(
            f"{_URL}102flowers.tgz",
            "archives/102flowers.tgz",
            "sha256:2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246",
            unpack="flowers-102",
        ),
        Source(
            f"{_URL}imagelabels.mat",
            "flowers-102/imagelabels.mat",
            "sha256:4903e94206bac23bf772aadf06451916df56b58fc483a62db32a97b82656651d",
        ),
        Source(
            f"{_URL}setid.mat",
            "flowers-102/setid.mat",
            "sha256:46b8678f91fd95d3c8f4feab80d271a6c834a1dd896fe29fd3e6ad9ce5c8dccd",
        ),
    ),
)
