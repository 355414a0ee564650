"""Birds of 31 kinds, where the paper has CUB-200."""

from __future__ import annotations

from forgetless.lab.datasets.reading.selection import selection

ENTRY = selection(
    "birds",
    "birds (31 kinds)",
    classes=31,
    train=664,
    test=166,
    license="CC0 as stated",
    page="its origin is not recorded",
    listing="32d5d912c65494f1",
)
