"""WiSE-FT: a point on the line from the base to the tuned model.

Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022, arXiv 2109.01903.
"""

from __future__ import annotations

from forgetless.edit.blocks import elementwise
from forgetless.edit.weight import Repaired, Settings, Versions


def repair(versions: Versions, settings: Settings) -> Repaired:
    """`base + α (tuned − base)`, of every weight."""
    alpha = settings.alpha
    blended = elementwise(lambda tuned, base: base.lerp(tuned, alpha), versions.tuned, versions.base)
    return Repaired(blended, {})
