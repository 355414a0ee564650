"""FGVC-Aircraft (Maji et al. 2013), its variants, through torchvision."""

from __future__ import annotations

from pathlib import Path

import torch

from forgetless.lab.datasets.reading.entry import Entry, Parts, Source, attempt
from forgetless.lab.datasets.reading.pictures import Pictures

_FILES = "data/images/, data/variants.txt, data/images_variant_trainval.txt and data/images_variant_test.txt"

_LISTS = tuple(f"data/{name}.txt" for name in ("variants", "images_variant_trainval", "images_variant_test"))


def read(folder: Path) -> Parts:
    """Train: the official training and validation parts together; test: the official one."""
    return attempt(lambda: _read(folder), folder, _FILES, _LISTS)


def _read(folder: Path) -> Parts:
    from torchvision.datasets import FGVCAircraft

    def part(split: str) -> Pictures:
        found = FGVCAircraft(str(folder.parent), split, "variant")
        paths = [Path(path) for path in found._image_files]
        names = [f"data/images/{path.name}" for path in paths]
        return Pictures(tuple(found.classes), paths, names, torch.tensor(found._labels, dtype=torch.int64))

    return part("trainval"), part("test")


ENTRY = Entry(
    "aircraft100",
    "FGVC-Aircraft",
    "fgvc-aircraft-2013b",
    f"fgvc-aircraft-2013b/ with {_FILES}",
    100,
    6667,
    3333,
    "non-commercial research only",
    "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/",
    read,
    (
        Source(
            "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
            "archives/fgvc-aircraft-2013b.tar.gz",
            "sha256:e4e323d410e29f0370c81eabdcbb0e2b813acea1de22891b70b58ff41bfc9834",
            unpack="",
        ),
    ),
)
