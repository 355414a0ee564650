"""Random labels and signs, one a sample and position, that depend on a seed and the sample's number alone.

No generator is carried along: the same sample gets the same one whatever the batch size, in a batch and alone, and a
pass that goes on from a file draws what an uninterrupted one would have drawn.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forgetless.model.shapes import Float, Int

_CELLS = 1 << 22  # probabilities that are summed up at a time


def labels(log_p: Float[Tensor, "n t c"], seed: int, numbers: Int[Tensor, " n"]) -> Int[Tensor, "n t"]:
    """One label per row of log-probabilities, by inverting their cumulative distribution.

    Args:
        log_p: `[N, T, C]`.
        seed: any integer.
        numbers: the samples' numbers, `[N]`.

    Returns:
        Class indices, `[N, T]`.
    """
    samples, positions, classes = log_p.shape
    u = torch.from_numpy(uniform(seed, numbers.cpu().numpy(), positions)).to(log_p.device).reshape(-1, 1)
    rows = max(1, _CELLS // classes)
    parts = zip(torch.split(log_p.detach().reshape(-1, classes), rows), torch.split(u, rows), strict=True)
    drawn = torch.cat([torch.searchsorted(part.double().exp().cumsum(1), level) for part, level in parts])
    return drawn.clamp_(max=classes - 1).view(samples, positions)


def signs(seed: int, numbers: Int[Tensor, " n"], like: Float[Tensor, "n o"]) -> Float[Tensor, "n o"]:
    """+1 or −1 for every sample and output, each with probability ½, in the dtype and on the device of `like`."""
    u = uniform(seed, numbers.cpu().numpy(), like.shape[1])
    return torch.from_numpy(np.where(u < 0.5, -1.0, 1.0)).to(like)


def uniform(seed: int, numbers: NDArray[np.int64], positions: int) -> NDArray[np.float64]:
    """Numbers in (0, 1) that (seed, n, t) decides, `[N, T]`.

    SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014), three deep.
    """
    key = _mixed(np.array([seed % 2**64], dtype=np.uint64), np.zeros(1, dtype=np.uint64))
    key = _mixed(key, numbers.astype(np.uint64))[:, None]
    bits = _mixed(key, np.arange(positions, dtype=np.uint64)) >> np.uint64(11)
    return (bits.astype(np.float64) + 0.5) / 2.0**53


def _mixed(key: NDArray[np.uint64], index: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Element `index` of the sequence that `key` starts."""
    z: NDArray[np.uint64] = key + (index + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z
