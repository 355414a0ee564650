"""Grocery Store (Klasson, Zhang, Kjellström 2019), 96 pixels, where the paper has FGVC-Aircraft."""

from __future__ import annotations

from forgetless.lab.datasets.reading.selection import selection

ENTRY = selection(
    "groceries",
    "groceries (Grocery Store, 96 pixels)",
    classes=81,
    train=2965,
    test=1463,
    license="MIT",
    page="https://github.com/marcusklasson/GroceryStoreDataset",
    listing="61f15c6c52ffd456",
)
