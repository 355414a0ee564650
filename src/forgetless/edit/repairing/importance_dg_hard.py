"""DG-Hard in the metric of importance: a change counts by what it does to the base's outputs."""

from __future__ import annotations

from forgetless.edit.blocks import elementwise
from forgetless.edit.weight import Repaired, Settings, Versions, thresholded


def repair(versions: Versions, settings: Settings) -> Repaired:
    """DG-Hard on `m ⊙ Δ`, divided by m again, with `m = √((Ω + Ω̄)/2Ω̄)` and Ω̄ the mean of Ω over the weight.

    Half of the mean is added so that m ≥ √½: what is divided by it cannot blow up. Weights without Ω, or where all of
    it is 0, are repaired with m = 1.
    """
    omega = versions.omega
    mean = 0.0 if omega is None else float(omega.mean())
    metric = None
    if omega is not None and mean > 0:
        metric = elementwise(lambda each: ((each + mean) / (2 * mean)).sqrt(), omega)
    return thresholded(versions, settings, metric)
