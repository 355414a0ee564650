"""15 scenes (Lazebnik, Schmid, Ponce 2006), gray, 96 pixels, where the paper has MIT Indoor-67."""

from __future__ import annotations

from forgetless.lab.datasets.reading.selection import selection

ENTRY = selection(
    "scenes",
    "scenes (15 scenes, gray, 96 pixels)",
    classes=15,
    train=900,
    test=450,
    license="academic use",
    page="Lazebnik, Schmid, Ponce, Beyond Bags of Features, CVPR 2006",
    listing="5c39a93011b03352",
)
