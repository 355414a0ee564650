"""The networks that are compared, by name: Transformer-XL, and the Compressive Transformer's compressors and losses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from forgetless.errors import ForgetlessError
from forgetless.lab.networks.compressive import Sizes
from forgetless.model.parameters import listing

#: Name → (compressor, loss); None for a network without compressed memories. Transformer-XL keeps as many positions as
#: the others keep recent and compressed ones together; with a short memory it keeps the recent ones only.
VARIANTS: Mapping[str, tuple[str, str] | None] = {
    "transformer-xl": None,
    "short-memory": None,
    "max": ("max", "none"),
    "mean": ("mean", "none"),
    "most-used": ("most-used", "none"),
    "conv+bptt": ("conv", "bptt"),
    "conv+autoencoding": ("conv", "autoencoding"),
    "conv+attention": ("conv", "attention"),
    "dilated+attention": ("dilated", "attention"),
}


def refuse_variants(names: tuple[str, ...]) -> None:
    """Refuse names that no variant has.

    Raises:
        ForgetlessError: naming the variants.
    """
    for name in names:
        if name not in VARIANTS:
            raise ForgetlessError(f"there is no variant {name!r}; there are {listing(VARIANTS, most=99)}.")


def sized(name: str, sizes: Sizes) -> Sizes:
    """The sizes of a variant, from those of the Compressive Transformer."""
    kind = VARIANTS[name]
    if kind is not None:
        return dataclasses.replace(sizes, compressor=kind[0], loss=kind[1])
    kept = sizes.memory + sizes.compressed if name == "transformer-xl" else sizes.memory
    return dataclasses.replace(sizes, memory=kept, compressed=0)


def longer(name: str, memory: int, compressed: int) -> tuple[int, int]:
    """What a variant keeps in an evaluation with longer memories: as much as the others, all in all."""
    if VARIANTS[name] is not None:
        return memory, compressed
    return (memory + compressed if name == "transformer-xl" else memory), 0
