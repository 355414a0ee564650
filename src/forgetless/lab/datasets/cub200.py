"""Caltech-UCSD Birds-200-2011 (Wah et al. 2011)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from forgetless.errors import ForgetlessError, quoted
from forgetless.lab.datasets.reading.entry import Entry, Parts, Source, label, lines
from forgetless.lab.datasets.reading.pictures import Pictures


def read(folder: Path) -> Parts:
    """The parts of `train_test_split.txt`; the four lists must name the same pictures."""
    classes = tuple(name for _, (_, name) in lines(folder / "classes.txt", 2))
    names = _column(folder / "images.txt")
    kinds = _column(folder / "image_class_labels.txt")
    parts = _column(folder / "train_test_split.txt")
    for list_, found in (("image_class_labels.txt", kinds), ("train_test_split.txt", parts)):
        if odd := names.keys() ^ found.keys():
            raise ForgetlessError(
                f"{folder / list_} and images.txt do not name the same pictures: {len(odd)} are in one of them only, "
                f"such as number {quoted(min(odd))[1:-1]}."
            )
    file = folder / "image_class_labels.txt"
    labels = {number: label(kind, len(classes), f"{file}, picture {number},") for number, kind in kinds.items()}
    odd_parts = {part for part in parts.values() if part not in ("0", "1")}
    if odd_parts:
        raise ForgetlessError(
            f"{folder / 'train_test_split.txt'} is damaged: it has a part {quoted(min(odd_parts))}, not 0 or 1."
        )

    def part(wanted: str) -> Pictures:
        mine = [number for number in names if parts[number] == wanted]
        paths = [folder / "images" / names[number] for number in mine]
        chosen = torch.tensor([labels[number] for number in mine], dtype=torch.int64)
        return Pictures(classes, paths, [names[number] for number in mine], chosen)

    return part("1"), part("0")


def _column(path: Path) -> Mapping[str, str]:
    return {number: value for _, (number, value) in lines(path, 2)}


ENTRY = Entry(
    "cub200",
    "CUB-200-2011",
    "CUB_200_2011",
    "CUB_200_2011/ with images/, images.txt, image_class_labels.txt, train_test_split.txt and classes.txt, as "
    "CUB_200_2011.tgz unpacks",
    200,
    5994,
    5794,
    "non-commercial research and education only",
    "https://www.vision.caltech.edu/datasets/cub_200_2011/",
    read,
    (
        Source(
            "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
            "archives/CUB_200_2011.tgz",
            "sha256:0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
            unpack="",
        ),
    ),
)
