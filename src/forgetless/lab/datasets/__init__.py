"""The datasets: where to get each, how its files are laid out, and reading them. One file, one `ENTRY`."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from forgetless.errors import ForgetlessError, listing, quoted

if TYPE_CHECKING:
    from forgetless.lab.datasets.reading.entry import Entry

    CATALOG: dict[str, Entry]


@functools.cache
def _catalog() -> dict[str, Entry]:
    """Name → dataset: the paper's eight in its order, two that later work splits into tasks, small ones, and facts.

    It is made at its first use: what reads pictures needs PyTorch, and what reads the text of a fact does not.
    """
    from forgetless.lab.datasets import (
        actions,
        aircraft100,
        birds,
        cars,
        cars196,
        chars74k,
        cifar100,
        cub200,
        digits,
        emoji_facts,
        flowers,
        flowers102,
        groceries,
        indoor67,
        letters,
        mnist10k,
        scenes,
        six_ds,
        svhn,
        textures,
        tiny_imagenet,
        voc_actions,
        vrd,
    )

    entries = (
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
        flowers.ENTRY,
        scenes.ENTRY,
        birds.ENTRY,
        cars.ENTRY,
        groceries.ENTRY,
        actions.ENTRY,
        letters.ENTRY,
        digits.ENTRY,
        textures.ENTRY,
        mnist10k.ENTRY,
        six_ds.ENTRY,
        vrd.ENTRY,
        emoji_facts.ENTRY,
    )
    return {entry.name: entry for entry in entries}


def __getattr__(name: str) -> Any:
    if name == "CATALOG":
        return _catalog()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def entry(name: str) -> Entry:
    """The dataset of that name in the catalog.

    Raises:
        ForgetlessError: no dataset has that name.
    """
    catalog = _catalog()
    if name not in catalog:
        raise ForgetlessError(f"no dataset is called {quoted(name)}; there are {listing(catalog, most=99)}.")
    return catalog[name]
