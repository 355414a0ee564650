"""The datasets: where to get each, how its files are laid out, and reading them. One file, one `ENTRY`."""

from __future__ import annotations

from forgetless.errors import ForgetlessError, quoted
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
from forgetless.lab.datasets.reading.entry import Entry
from forgetless.model.parameters import listing

#: The paper's eight in its order, two that later work splits into tasks, small ones, and facts.
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
}


def entry(name: str) -> Entry:
    """The dataset of that name in the catalog.

    Raises:
        ForgetlessError: no dataset has that name.
    """
    if name not in CATALOG:
        raise ForgetlessError(f"no dataset is called {quoted(name)}; there are {listing(CATALOG, most=99)}.")
    return CATALOG[name]
