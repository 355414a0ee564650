"""Averaging element by element with the importance of each model's parameters as weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from forgetless.edit.merging.parts.method import Settings


def averaged(versions: Sequence[Tensor], settings: Settings) -> Tensor:
    """`Σ_k w_k θ_k`, with `normalize` divided by Σ_k w_k."""
    total = torch.zeros_like(versions[0])
    for weight, version in zip(settings.weights, versions, strict=True):
        total.add_(version, alpha=weight)
    return total.div_(sum(settings.weights)) if settings.normalize else total


def by_importance(
    versions: Sequence[Tensor], base: Tensor | None, omegas: Sequence[Tensor] | None, settings: Settings
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
    merged, mass = versions[0].clone(), omegas[0] * settings.weights[0]
    for weight, version, omega in zip(settings.weights[1:], versions[1:], omegas[1:], strict=True):
        own = omega * weight
        share = own.div_(mass.add_(own)).nan_to_num_(nan=0.0, posinf=0.0)  # 0/0: no model has said anything yet
        merged.lerp_(version, share)
    unknown = mass == 0
    return torch.where(unknown, averaged(versions, plain), merged) if bool(unknown.any()) else merged
