"""22 sports in web pictures with noisy labels, where the paper has VOC Actions."""

from __future__ import annotations

from forgetless.lab.datasets.reading.selection import selection

ENTRY = selection(
    "actions",
    "actions (22 sports, web pictures with noisy labels)",
    classes=22,
    train=1320,
    test=660,
    license="unknown",
    page="its origin is not recorded",
    listing="19cb51aa5f36f692",
)
