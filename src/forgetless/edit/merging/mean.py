"""The weighted mean of the models, without a base.

`θ = Σ_k w_k θ_k / Σ_k w_k`, k model. With equal weights it is the mean of Incremental Moment Matching (Lee, Kim, Jun,
Ha, Zhang, NeurIPS 2017, arXiv 1703.08475); of models fine-tuned from one base it is a uniform soup (Wortsman et al.,
"Model soups", ICML 2022, arXiv 2203.05482).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from forgetless.edit.merging.parts.method import Method, Settings
from forgetless.edit.merging.parts.weighted import averaged


def merge(
    versions: Sequence[Tensor], base: Tensor | None, omegas: Sequence[Tensor] | None, settings: Settings
) -> Tensor:
    """`Σ_k w_k θ_k / Σ_k w_k`; without `normalize`, `Σ_k w_k θ_k`."""
    return averaged(versions, settings)


METHOD = Method(
    "mean",
    "θ = Σ_k w_k θ_k / Σ_k w_k",
    "IMM's mean (arXiv 1703.08475); model soups (arXiv 2203.05482)",
    merge,
    defaults={"normalize": True},
)
