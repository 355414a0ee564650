"""Picture sets: where each is to be had, how its files are laid out, and reading them."""

from __future__ import annotations

from forgetless.errors import ForgetlessError
from forgetless.lab.datasets import (
    aircraft100,
    cars196,
    chars74k,
    cifar100,
    cub200,
    flowers102,
    indoor67,
    small,
    svhn,
    tiny_imagenet,
    voc_actions,
)
from forgetless.lab.datasets.reading.entry import Entry
from forgetless.model.parameters import listing

#: The paper's eight, in its order, two that later work splits into tasks, and small ones.
CATALOG: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        flowers102.ENTRY,
        indoor67.ENTRY,
        cub200.ENTRY,
        cars196.ENTRY,
        aircraft100.ENTRY,
        voc_actions.ENTRY,
        chars74k.ENTRY,
        svhn.ENTRY,
        cifar100.ENTRY,
        tiny_imagenet.ENTRY,
        *small.ENTRIES,
    )
}


def entry(name: str) -> Entry:
    """The set of that name in the catalog.

    Raises:
        ForgetlessError: there is none.
    """
    if name not in CATALOG:
        raise ForgetlessError(f"there is no picture set {name!r}; there are {listing(CATALOG, most=99)}.")
    return CATALOG[name]
