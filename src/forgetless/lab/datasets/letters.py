"""Letters A to Z of Chars74K (de Campos, Babu, Varma 2009), street pictures, 64 pixels."""

from __future__ import annotations

from forgetless.lab.datasets.reading.selection import selection

ENTRY = selection(
    "letters",
    "letters (Chars74K street letters, 64 pixels)",
    classes=26,
    train=1518,
    test=722,
    license="free for research",
    page="https://info-ee.surrey.ac.uk/CVSSP/demos/chars74k/",
    listing="79b940304543fdd9",
)
