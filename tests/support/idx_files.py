"""The four files that MNIST comes in, small ones."""

from __future__ import annotations

import gzip
from pathlib import Path

import torch


def idx(tensor: torch.Tensor) -> bytes:
    lengths = b"".join(length.to_bytes(4, "big") for length in tensor.shape)
    return bytes((0, 0, 8, tensor.dim())) + lengths + tensor.to(torch.uint8).numpy().tobytes()


def written(folder: Path, separator: str = "-", *, zipped: bool = False) -> dict[str, torch.Tensor]:
    """Four files as MNIST has them; 20 pictures to learn from and 10 to test on."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    found = {}
    for part, count in (("train", 20), ("t10k", 10)):
        found[f"{part}-images", 3] = torch.randint(0, 256, (count, 28, 28), generator=generator)
        found[f"{part}-labels", 1] = torch.arange(count) % 10
    for (name, axes), tensor in found.items():
        path = folder / f"{name}{separator}idx{axes}-ubyte{'.gz' * zipped}"
        path.write_bytes(gzip.compress(idx(tensor)) if zipped else idx(tensor))
    return {name: tensor for (name, _), tensor in found.items()}
