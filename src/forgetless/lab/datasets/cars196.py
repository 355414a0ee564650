"""Stanford Cars (Krause et al. 2013), through torchvision."""

from __future__ import annotations

from pathlib import Path

import torch

from forgetless.lab.datasets.reading.entry import Entry, Parts, attempt, checked
from forgetless.lab.datasets.reading.pictures import Pictures

_FILES = "cars_train/, cars_test/, devkit/cars_train_annos.mat, devkit/cars_meta.mat and cars_test_annos_withlabels.mat"

_LISTS = ("devkit/cars_train_annos.mat", "devkit/cars_meta.mat", "cars_test_annos_withlabels.mat")


def read(folder: Path) -> Parts:
    """The official parts; whole pictures."""
    return attempt(lambda: _read(folder), folder, _FILES, _LISTS)


def _read(folder: Path) -> Parts:
    from torchvision.datasets import StanfordCars

    def part(split: str) -> Pictures:
        found = StanfordCars(str(folder.parent), split)
        classes = tuple(map(str, found.classes))
        paths = [Path(path) for path, _ in found._samples]
        labels = [int(label) for _, label in found._samples]
        checked(labels, classes, f"{split} of {folder}")
        return Pictures(classes, paths, [f"cars_{split}/{path.name}" for path in paths], torch.tensor(labels))

    return part("train"), part("test")


ENTRY = Entry(
    "cars196",
    "Stanford Cars",
    "stanford_cars",
    f"stanford_cars/ with {_FILES}",
    196,
    8144,
    8041,
    "non-commercial research only",
    "https://github.com/pytorch/vision/issues/7545",
    read,
    otherwise="its authors' page is gone, and the discussion there tells where copies are kept",
)
