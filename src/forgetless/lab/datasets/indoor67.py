"""MIT Indoor Scenes (Quattoni and Torralba 2009)."""

from __future__ import annotations

from pathlib import Path

import torch

from forgetless.errors import ForgetlessError, quoted
from forgetless.lab.datasets.reading.entry import Entry, Parts, Source, lines
from forgetless.lab.datasets.reading.pictures import Pictures


def read(folder: Path) -> Parts:
    """The lists' own training and test part; the classes are the folders in `Images/`, sorted."""
    images = folder / "Images"
    if not images.is_dir():
        raise ForgetlessError(f"{folder} is unpacked only in part: it has no folder Images/.")
    classes = tuple(sorted(each.name for each in images.iterdir() if each.is_dir()))
    numbers = {name: number for number, name in enumerate(classes)}

    def part(file: str) -> Pictures:
        names, labels = [], []
        for number, (name,) in lines(folder / file, 1):
            kind = name.partition("/")[0]
            if kind not in numbers:
                raise ForgetlessError(
                    f"{folder / file} line {number} has the class {quoted(kind)}, which is no folder of Images/."
                )
            names.append(name.strip())
            labels.append(numbers[kind])
        return Pictures(classes, [images / name for name in names], names, torch.tensor(labels, dtype=torch.int64))

    return part("TrainImages.txt"), part("TestImages.txt")


ENTRY = Entry(
    "indoor67",
    "MIT Indoor-67",
    "indoor67",
    "indoor67/ with Images/CLASS/*.jpg from indoorCVPR_09.tar, TrainImages.txt and TestImages.txt",
    67,
    5360,
    1340,
    "research only; the pictures are their owners'",
    "https://web.mit.edu/torralba/www/indoor.html",
    read,
    (
        Source(
            "https://groups.csail.mit.edu/vision/LabelMe/NewImages/indoorCVPR_09.tar",
            "archives/indoorCVPR_09.tar",
            unpack="indoor67",
        ),
        Source(
            "https://web.mit.edu/torralba/www/TrainImages.txt",
            "indoor67/TrainImages.txt",
            "sha256:7ec85f88735739d8159061e4bcf6a9765aab8606ab444605b3f8e0641be0260e",
        ),
        Source(
            "https://web.mit.edu/torralba/www/TestImages.txt",
            "indoor67/TestImages.txt",
            "sha256:906c529a5a0918feec371de5b07a465ddb1f15ebaebc90a33cc321c371133bf1",
        ),
    ),
)
