"""DG-Hard: keep the singular values of the change that reach above what noise would give.

"Spectral Unforgetting: Post-Hoc Recovery of Damaged Capabilities Without Retraining", 2026, arXiv 2605.20296.
"""

from __future__ import annotations

from forgetless.edit.weight import Repaired, Settings, Versions, thresholded


def repair(versions: Versions, settings: Settings) -> Repaired:
    """`base + Σ_{S_r > τ} S_r u_r v_rᵀ` of Δ = tuned − base = U S Vᵀ, with `τ = scale · ω(β) · median(S)`.

    Weights with one axis, with fewer than 1,024 elements or with no change above 1e-8 keep their tuned values.

    Differences from the authors' code: the median of an even number of singular values is the mean of the middle two;
    weights with more than two axes are looked at as [o, i·h·w], as the paper says; an adapter's difference of rank r
    counts its r singular values, for the median of all would be 0 and nothing would be removed.
    """
    return thresholded(versions, settings, None)
