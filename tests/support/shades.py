"""Small sets of dark and light pictures, and a small network for them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from forgetless.lab.experiments.demo import Scale
from forgetless.learn.heads import MultiHead

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")


def small(pooled: int = 1) -> MultiHead:
    """A network that counts as pretrained; its features are 4 times `pooled` squared."""
    torch.manual_seed(0)
    pool = nn.AdaptiveAvgPool2d(pooled)
    backbone = nn.Sequential(Scale(), nn.Conv2d(3, 4, 3, 2), nn.ReLU(), pool, nn.Flatten())
    return MultiHead(backbone, 4 * pooled**2, pretrained=True)


def written(folder: Path, number: int, *, train: int, test: int, side: int = 12) -> Path:
    """Set `number` in a folder: so many pictures of each of two classes, of that many pixels a side."""
    for split, count in (("train", train), ("test", test)):
        for label, kind in enumerate(("dark", "light")):
            place = folder / split / kind
            place.mkdir(parents=True)
            for picture in range(count):
                shade = 40 + 150 * label + 5 * picture + number
                Image.new("RGB", (side, side), (shade, shade, 10 * number)).save(place / f"{picture}.png")
    return folder
