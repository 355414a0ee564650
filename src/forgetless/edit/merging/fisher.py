"""Fisher merging: each model counts, element by element, as much as its Fisher information says.

Matena and Raffel, "Merging Models with Fisher-Weighted Averaging", NeurIPS 2022, arXiv 2111.09832.
`θ = Σ_k w_k F_k θ_k / Σ_k w_k F_k`, k model, F_k the diagonal. With F as measured it is the mode of Incremental Moment
Matching (Lee et al., NeurIPS 2017, arXiv 1703.08475), with equal F its mean. F comes from `forgetless.fisher` or
`forgetless.output_curvature`.
"""

from __future__ import annotations

from forgetless.edit.merging.parts.method import Method
from forgetless.edit.merging.parts.weighted import by_importance

METHOD = Method(
    "fisher",
    "θ = Σ_k w_k F_k ⊙ θ_k / Σ_k w_k F_k",
    "Matena and Raffel 2022 (arXiv 2111.09832); IMM's mode (arXiv 1703.08475)",
    by_importance,
    estimators=("fisher", "output curvature"),
    signed=False,
)
