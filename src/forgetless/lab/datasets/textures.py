"""10 classes of the Describable Textures Dataset (Cimpoi et al. 2014)."""

from __future__ import annotations

from forgetless.lab.datasets.reading.selection import selection

ENTRY = selection(
    "textures",
    "textures (10 classes of DTD)",
    classes=10,
    train=600,
    test=300,
    license="research",
    page="https://www.robots.ox.ac.uk/~vgg/data/dtd/",
    listing="0bceee788a05b3ac",
    instead="sequence takes any dataset instead",
)
