"""Task vectors `τ_k = θ_k − θ_base`: made sparse, added up, or merged where their signs agree."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from forgetless.edit.merging.parts.method import Settings

Sparse = Callable[[int, Tensor], Tensor]


class Lazy:
    """`τ_k` of every model, made whenever it is asked for: the methods go through them more than once.

    Args:
        versions: θ_k.
        base: θ_base.
        sparse: (k, τ_k) → τ_k with fewer elements, which may be τ_k itself, changed.
    """

    def __init__(self, versions: Iterable[Tensor], base: Tensor, sparse: Sparse | None = None) -> None:
        self._versions, self._base, self._sparse = versions, base, sparse

    def __iter__(self) -> Iterator[Tensor]:
        versions = iter(self._versions)
        for k in itertools.count():
            try:
                made = [self._delta(k, next(versions))]
            except StopIteration:
                return
            yield made.pop()  # nothing here refers to it while the next one is made

    def _delta(self, k: int, version: Tensor) -> Tensor:
        delta = version - self._base
        del version
        return delta if self._sparse is None else self._sparse(k, delta)


def added(deltas: Iterable[Tensor], base: Tensor, settings: Settings) -> Tensor:
    """`θ_base + λ Σ_k w_k τ_k`, with `normalize` divided by Σ_k w_k."""
    total, given = torch.zeros_like(base), iter(deltas)
    for weight in settings.weights:
        total.add_(next(given), alpha=weight)
    return total.mul_(settings.scale / (sum(settings.weights) if settings.normalize else 1.0)).add_(base)


def agreeing(deltas: Iterable[Tensor], base: Tensor, settings: Settings) -> Tensor:
    """`θ_base + λ Σ_{k ∈ A} w_k τ_k`, with `normalize` divided by Σ_{k ∈ A} w_k.

    A is, element by element, the set of models in which `w_k τ_k` has the elected sign: that of `Σ_k w_k τ_k`, or with
    `majority="count"` of `Σ_k sign(w_k τ_k)`; + where these are 0. An element of τ_k that is 0 takes no part.
    """
    positive = _elected(deltas, base, settings)
    total, given = torch.zeros_like(base), iter(deltas)
    mass = torch.zeros_like(base) if settings.normalize else None
    for weight in settings.weights:
        delta = next(given).mul_(weight)
        apart = torch.where(positive, delta <= 0, delta >= 0)
        total.add_(delta.masked_fill_(apart, 0.0))
        if mass is not None:
            mass.add_(apart.logical_not_(), alpha=weight)
        del delta, apart  # before the next one is made
    if mass is not None:
        total.div_(mass.masked_fill_(mass == 0, 1.0))
    return total.mul_(settings.scale).add_(base)


def _elected(deltas: Iterable[Tensor], base: Tensor, settings: Settings) -> Tensor:
    """Where the elected sign is +."""
    votes, given = torch.zeros_like(base), iter(deltas)
    for weight in settings.weights:
        delta = next(given).mul_(weight)
        votes.add_(delta.sign_() if settings.majority == "count" else delta)
        del delta
    return votes >= 0


def trimmed(settings: Settings) -> Sparse:
    """Keep the `⌊density · numel⌋` largest elements of |τ_k|, one at least; of equal ones the first."""
    thresholds: dict[int, float] = {}  # the second time around they are known

    def sparse(k: int, delta: Tensor) -> Tensor:
        density, count = settings.density[k], delta.numel()
        kept = max(1, int(density * count))
        if density >= 1 or kept >= count:
            return delta
        if k not in thresholds:
            sizes = delta.abs().reshape(-1).cpu().numpy()
            sizes.partition(count - kept)
            thresholds[k] = float(np.asarray(sizes[count - kept]))
            del sizes
        flat, threshold = delta.reshape(-1), thresholds[k]
        small = (flat < threshold).logical_and_(flat > -threshold)
        level = (flat == threshold).logical_or_(flat == -threshold).nonzero().reshape(-1)
        spare = count - int(small.sum()) - kept
        if spare > 0:
            small[level[level.numel() - spare :]] = True
        return flat.masked_fill_(small, 0.0).view_as(delta)

    return sparse


def dropped(settings: Settings) -> Sparse:
    """Keep each element of τ_k with probability `density`, and rescale what is left.

    Which ones depends on the seed, the tensor's name and k alone: not on the order, and not on what was done before.
    """

    def sparse(k: int, delta: Tensor) -> Tensor:
        density = settings.density[k]
        if density >= 1:
            return delta
        gone = ~kept(delta.shape, density, settings.seed, settings.tensor, k).to(delta.device)
        before = float(delta.abs().sum()) if settings.rescale == "l1" else 0.0
        delta.masked_fill_(gone, 0.0)
        if settings.rescale == "density":
            return delta.div_(density)
        after = float(delta.abs().sum()) if settings.rescale == "l1" else 0.0
        return delta.mul_(before / after) if after > 0 else delta

    return sparse


def kept(shape: torch.Size, density: float, seed: int, tensor: str, k: int) -> Tensor:
    """Which elements of model k's tensor are kept: bool, each True with probability `density`."""
    own = int.from_bytes(hashlib.sha256(repr((seed, tensor, k)).encode()).digest()[:8], "big") >> 1
    return torch.rand(shape, generator=torch.Generator().manual_seed(own)) < density
