"""Oxford Flowers-102 (Nilsback and Zisserman 2008), scaled to 64 pixels."""

from __future__ import annotations

from forgetless.lab.datasets.reading.selection import selection

ENTRY = selection(
    "flowers",
    "flowers (Oxford Flowers-102, 64 pixels)",
    classes=102,
    train=5087,
    test=1563,
    license="academic use",
    page="https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
    listing="c82dfa569afd9ae9",
)
