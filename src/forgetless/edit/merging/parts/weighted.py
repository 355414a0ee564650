"""Averaging element by element with the importance of each model's parameters as weights."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from forgetless.edit.merging.parts.method import Settings


def averaged(versions: Iterable[Tensor], settings: Settings) -> Tensor:
    """`Σ_k w_k θ_k`, with `normalize` divided by Σ_k w_k."""
    total: Tensor | None = None
    for weight, version in zip(settings.weights, versions, strict=True):
        total = version * weight if total is None else total.add_(version, alpha=weight)
    assert total is not None
    return total.div_(sum(settings.weights)) if settings.normalize else total


def by_importance(
    versions: Iterable[Tensor], base: Tensor | None, omegas: Iterable[Tensor] | None, settings: Settings
) -> Tensor:
    """`θ = Σ_k w_k Ω_k θ_k / Σ_k w_k Ω_k`, element by element; where that sum is 0, `Σ_k w_k θ_k / Σ_k w_k`.

    It is computed as a running mean, so that every element lies between the smallest and the largest version of it,
    however small Ω is.

    Args:
        versions: θ_k.
        base: not used.
        omegas: Ω_k ≥ 0, of the same shape; None for the plain weighted mean.
        settings: `weights`.
    """
    plain = Settings(settings.weights, normalize=True)
    if omegas is None:
        return averaged(versions, plain)
    thetas, weighing = iter(versions), iter(omegas)
    merged, mass = next(thetas).clone(), next(weighing) * settings.weights[0]
    for weight in settings.weights[1:]:
        own = next(weighing) * weight
        share = own.div_(mass.add_(own)).nan_to_num_(nan=0.0, posinf=0.0)  # 0/0: no model has said anything yet
        merged.lerp_(next(thetas), share)
        del own, share  # before the next ones are read
    unknown = mass == 0
    return torch.where(unknown, averaged(versions, plain), merged) if bool(unknown.any()) else merged
