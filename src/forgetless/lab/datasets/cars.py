"""Stanford Cars (Krause et al. 2013), cut to their boxes, 96 pixels."""

from __future__ import annotations

from forgetless.lab.datasets.reading.selection import selection

ENTRY = selection(
    "cars",
    "cars (Stanford Cars cut to their boxes, 96 pixels)",
    classes=196,
    train=2940,
    test=1166,
    license="non-commercial research",
    page="https://github.com/pytorch/vision/issues/7545",
    listing="1d0c648a3d70420a",
)
