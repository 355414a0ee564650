"""Digits of Chars74K (de Campos, Babu, Varma 2009), street pictures, where the paper has SVHN."""

from __future__ import annotations

from forgetless.lab.datasets.reading.selection import selection

ENTRY = selection(
    "digits",
    "digits (Chars74K street digits)",
    classes=10,
    train=543,
    test=206,
    license="free for research",
    page="https://info-ee.surrey.ac.uk/CVSSP/demos/chars74k/",
    listing="54e7b868538897f1",
)
