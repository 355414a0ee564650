"""The file of a frozen core: a bit for each element or row of the parameters that stand still in part."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.protect.frozen.share import Share


def mark(shares: Mapping[str, Share]) -> str:
    """A fingerprint of which elements stand still, the same in every process and at every time."""
    digest = hashlib.sha256()
    for name, share in sorted(shares.items()):
        digest.update(f"{name}\0{share.kind}\0{tuple(share.shape)}\0".encode())
        digest.update(bits(share.core()).cpu().numpy().tobytes())
    return digest.hexdigest()[:32]


def write(path: str | Path, shares: Mapping[str, Share], values: Mapping[str, str]) -> None:
    """Write which elements stand still, whole or not at all.

    Args:
        path: the file.
        shares: name → what is free of each parameter that is frozen in part or as a whole.
        values: name → a fingerprint of the values that stand still.
    """
    tensors = {name: bits(share.core()) for name, share in shares.items() if share.kind != "tensor"}
    header = {
        "kinds": {name: share.kind for name, share in shares.items()},
        "shapes": {name: list(share.shape) for name, share in shares.items()},
        "values": dict(values),
    }
    files.write_tensors(path, tensors, "core", header)


def read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The masks that were written, and the fingerprints of the values.

    Raises:
        ForgetlessError: the file is missing, cut, damaged or no core's.
    """
    tensors, header = files.read_tensors(path, "core", dtypes={torch.uint8})
    noted: _Header = files.decoded(header, _Header, path)
    if noted.kinds.keys() != noted.shapes.keys():
        raise ForgetlessError(f"{path} is damaged: its header does not match its tensors.")
    masks = {}
    for name, kind in noted.kinds.items():
        shape = torch.Size(noted.shapes[name])
        units = {"element": shape.numel(), "row": shape[0] if shape else 1, "tensor": 0}.get(kind)
        held = tensors.get(name, torch.empty(0, dtype=torch.uint8))
        if units is None or held.shape != (-(-units // 8),):
            raise ForgetlessError(f"{path} is damaged: the bits of {name!r} do not fit its shape.")
        core = unpacked(held, units)
        if kind == "tensor":
            masks[name] = torch.ones((), dtype=torch.bool).expand(shape)
        else:
            masks[name] = (
                core.view(shape) if kind == "element" else core.view(-1, *(1,) * (len(shape) - 1)).expand(shape)
            )
    return masks, noted.values


def bits(mask: Tensor) -> Tensor:
    """8 booleans a byte, the first in the lowest bit; uint8 on the CPU."""
    flat = mask.reshape(-1).cpu()
    found = torch.zeros(-(-flat.numel() // 8), dtype=torch.uint8)
    for place in range(8):
        part = flat[place::8].to(torch.uint8)
        found[: len(part)] |= part << place
    return found


def unpacked(packed: Tensor, count: int) -> Tensor:
    """The booleans that `bits` packed."""
    found = torch.empty(len(packed) * 8, dtype=torch.bool)
    for place in range(8):
        found[place::8] = (packed >> place & 1).to(torch.bool)
    return found[:count]


@dataclass(frozen=True)
class _Header:
    """What a core's file says of itself: how each parameter is frozen, its shape, and its values' fingerprint."""

    kinds: dict[str, str]
    shapes: dict[str, files.Shape]
    values: dict[str, str]
