"""Blend toward the base where it matters to what the base computes: the proximal step (the pull) after the fact."""

from __future__ import annotations

from torch import Tensor

from forgetless.edit.blocks import elementwise
from forgetless.edit.weight import Repaired, Settings, Versions


def repair(versions: Versions, settings: Settings) -> Repaired:
    """`(tuned + s Ω̂ base) / (1 + s Ω̂)`, with Ω̂ = Ω / mean Ω: the w that minimizes `‖w − tuned‖² + s Σ Ω̂ (w − base)²`.

    Weights without Ω keep their tuned values.
    """
    if versions.omega is None:
        return Repaired(versions.tuned, {})
    strength = settings.strength

    def blended(tuned: Tensor, base: Tensor, omega: Tensor) -> Tensor:
        return base + (tuned - base) / (1 + strength * omega)

    return Repaired(elementwise(blended, versions.tuned, versions.base, versions.omega), {})
