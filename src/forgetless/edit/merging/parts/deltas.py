"""Task vectors `τ_k = θ_k − θ_base`: made sparse, added up, or merged where their signs agree."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from forgetless.edit.merging.parts.method import Settings, TaskVectors, Thin


def added(deltas: Sequence[Tensor], base: Tensor | None, omegas: Sequence[Tensor] | None, settings: Settings) -> Tensor:
    """`θ_base + λ Σ_k w_k τ_k`, with `normalize` divided by Σ_k w_k."""
    assert base is not None
    total = torch.zeros_like(base)
    for weight, delta in zip(settings.weights, deltas, strict=True):
        total.add_(delta, alpha=weight)
    return total.mul_(settings.scale / (sum(settings.weights) if settings.normalize else 1.0)).add_(base)


def agreeing(
    deltas: Sequence[Tensor], base: Tensor | None, omegas: Sequence[Tensor] | None, settings: Settings
) -> Tensor:
    """`θ_base + λ Σ_{k ∈ A} w_k τ_k`, with `normalize` divided by Σ_{k ∈ A} w_k.

    A is, element by element, the set of models in which `w_k τ_k` has the elected sign: that of `Σ_k w_k τ_k`, or with
    `majority="count"` of `Σ_k sign(w_k τ_k)`; + where these are 0. An element of τ_k that is 0 takes no part.
    """
    assert base is not None
    weighted = [delta.mul_(weight) for weight, delta in zip(settings.weights, deltas, strict=True)]
    positive = _elected(weighted, settings)
    total, mass = torch.zeros_like(base), torch.zeros_like(base)
    for weight, part in zip(settings.weights, weighted, strict=True):
        apart = torch.where(positive, part <= 0, part >= 0)
        total.add_(part.masked_fill_(apart, 0.0))
        mass.add_(apart.logical_not_(), alpha=weight)
    if settings.normalize:
        total.div_(mass.masked_fill_(mass == 0, 1.0))
    return total.mul_(settings.scale).add_(base)


def _elected(weighted: Sequence[Tensor], settings: Settings) -> Tensor:
    """Where the elected sign is +."""
    votes = torch.zeros_like(weighted[0])
    for each in weighted:
        votes.add_(each.sign() if settings.majority == "count" else each)
    return votes >= 0


def dense(settings: Settings, vectors: TaskVectors) -> Thin:
    """Keep everything."""
    return lambda k, delta: delta


def trimmed(settings: Settings, vectors: TaskVectors) -> Thin:
    """Keep the `⌊density · numel⌋` largest elements of |τ_k|, one at least; of equal ones the first."""
    limits: dict[int, tuple[float, int]] = {}  # |τ| of the smallest that are kept, and how many of that size still

    def thin(k: int, delta: Tensor) -> Tensor:
        kept = max(1, int(settings.density[k] * vectors.elements))
        if kept >= vectors.elements:
            return delta
        if k not in limits:
            limits[k] = _limit(vectors, k, kept, delta)
        threshold, left = limits[k]
        sizes = delta.abs()
        small = sizes < threshold
        level = (sizes == threshold).nonzero().reshape(-1)
        small[level[left:]] = True
        limits[k] = threshold, max(0, left - len(level))
        return delta.masked_fill_(small, 0.0)

    return thin


def _limit(vectors: TaskVectors, k: int, kept: int, like: Tensor) -> tuple[float, int]:
    """The size of the `kept`-th largest element of τ_k, and how many of the kept ones have that size."""
    sizes = torch.empty(vectors.elements, dtype=like.dtype)
    at = 0
    for block in vectors.blocks(k):
        sizes[at : at + len(block)] = block.abs()
        at += len(block)
    place = vectors.elements - kept
    ordered = sizes.numpy()
    ordered.partition(place)
    threshold = float(np.asarray(ordered[place]))
    return threshold, kept - int((sizes[place:] > threshold).sum())


def dropped(settings: Settings, vectors: TaskVectors) -> Thin:
    """Keep each element of τ_k with probability `density`, and rescale what is left.

    Which ones depends on the seed, the tensor's name and k alone: not on the order, and not on what was done before.
    """
    draws = [draw(settings.seed, settings.tensor, k) for k in range(len(settings.density))]
    divisors: dict[int, float] = {}

    def thin(k: int, delta: Tensor) -> Tensor:
        density = settings.density[k]
        if density >= 1:
            return delta
        if k not in divisors:
            divisors[k] = {"density": density, "none": 1.0}.get(settings.rescale) or _share(settings, vectors, k)
        return _drop(delta, density, draws[k]).div_(divisors[k])

    return thin


def _share(settings: Settings, vectors: TaskVectors, k: int) -> float:
    """How much of the l1 norm of τ_k is left; 1 where it is nothing."""
    again, before, after = draw(settings.seed, settings.tensor, k), 0.0, 0.0
    for block in vectors.blocks(k):
        before += float(block.abs().sum(dtype=torch.float64))
        after += float(_drop(block, settings.density[k], again).abs().sum(dtype=torch.float64))
    return after / before if after > 0 else 1.0


def _drop(delta: Tensor, density: float, generator: torch.Generator) -> Tensor:
    return delta.masked_fill_(~kept(delta.shape, density, generator).to(delta.device), 0.0)


def draw(seed: int, tensor: str, k: int) -> torch.Generator:
    """What decides which elements of model k's tensor are kept."""
    own = int.from_bytes(hashlib.sha256(repr((seed, tensor, k)).encode()).digest()[:8], "big") >> 1
    return torch.Generator().manual_seed(own)


def kept(shape: torch.Size, density: float, generator: torch.Generator) -> Tensor:
    """Which of the next elements are kept: bool, each True with probability `density`."""
    return torch.rand(shape, generator=generator) < density
