"""The 10,000 test digits of MNIST (LeCun et al. 1998), split anew."""

from __future__ import annotations

from forgetless.lab.datasets.reading.selection import selection

ENTRY = selection(
    "mnist10k",
    "MNIST's test digits, split anew",
    classes=10,
    train=8000,
    test=2000,
    license="CC BY-SA 3.0",
    page="http://yann.lecun.com/exdb/mnist/",
    listing="4c34cb009c539624",
    instead="split-mnist, permuted-mnist and authors-demo take MNIST itself or any dataset of ten classes instead",
)
