"""Merging by MAS: as Fisher merging, with the importance of Memory Aware Synapses, which needs no labels.

`θ = Σ_k w_k Ω_k θ_k / Σ_k w_k Ω_k`, k model, `Ω_k = 1/N Σ_n |∂‖F(x_n; θ_k)‖²/∂θ|` (Aljundi, Babiloni, Elhoseiny,
Rohrbach, Tuytelaars, ECCV 2018, arXiv 1711.09601) in the place of the Fisher information of Matena and Raffel (arXiv
2111.09832). Ω comes from `forgetless.mas`, `forgetless.local_mas` or `forgetless measure`.
"""

from __future__ import annotations

from forgetless.edit.merging.parts.method import Method
from forgetless.edit.merging.parts.weighted import by_importance

METHOD = Method(
    "mas",
    "θ = Σ_k w_k Ω_k ⊙ θ_k / Σ_k w_k Ω_k",
    "Matena and Raffel 2022 (arXiv 2111.09832), with Ω of Aljundi et al. 2018 (arXiv 1711.09601)",
    by_importance,
    estimators=("mas", "local-mas"),
    signed=False,
)
