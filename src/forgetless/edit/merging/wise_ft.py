"""WiSE-FT: a point on the line from the base to one fine-tuned model.

Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022, arXiv 2109.01903. `θ = (1 − α) θ_base + α θ_1`.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from forgetless.edit.merging.parts.method import Method, Settings


def merge(
    versions: Sequence[Tensor], base: Tensor | None, omegas: Sequence[Tensor] | None, settings: Settings
) -> Tensor:
    """`(1 − α) θ_base + α θ_1`; exactly θ_base at α = 0 and θ_1 at α = 1."""
    assert base is not None
    return base.lerp(versions[0], settings.alpha)


METHOD = Method(
    "wise-ft",
    "θ = (1 − α) θ_base + α θ_1",
    "Wortsman et al. 2022 (arXiv 2109.01903)",
    merge,
    needs_base=True,
    models=1,
    defaults={"alpha": 0.5},  # the paper's
)
