"""Random numbers that depend on their purpose alone, so that an interrupted run repeats them."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def derive(seed: int, *purpose: str | int) -> int:
    """A seed for one purpose: the first 63 bits of `SHA-256(seed, purpose)`.

    Args:
        seed: the run's seed.
        purpose: words and numbers that name the purpose; the same ones always give the same seed.
    """
    return int.from_bytes(hashlib.sha256(repr((seed, *purpose)).encode()).digest()[:8], "big") >> 1


def permutation(samples: int, seed: int) -> Tensor:
    """The numbers 0 … samples − 1 in an order that `seed` alone decides, int64 `[samples]`."""
    return torch.randperm(samples, generator=torch.Generator().manual_seed(seed))


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed torch's global generators of the CPU and of `device`.

    `torch.manual_seed` seeds every backend and takes as long as a small network's step; this takes microseconds.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        getattr(torch, device.type).manual_seed(seed)
