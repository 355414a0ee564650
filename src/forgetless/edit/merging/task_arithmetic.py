"""Task arithmetic: add what each model has learned to the base.

Ilharco, Ribeiro, Wortsman, Gururangan, Schmidt, Hajishirzi, Farhadi, "Editing Models with Task Arithmetic", ICLR 2023,
arXiv 2212.04089. `τ_k = θ_k − θ_base`, `θ = θ_base + λ Σ_k w_k τ_k`, k model. A negative weight removes what a model
has learned.
"""

from __future__ import annotations

from forgetless.edit.merging.parts.deltas import added, dense
from forgetless.edit.merging.parts.method import Method

METHOD = Method(
    "task-arithmetic",
    "θ = θ_base + λ Σ_k w_k τ_k, τ_k = θ_k − θ_base",
    "Ilharco et al. 2023 (arXiv 2212.04089)",
    added,
    dense,
    needs_base=True,
    # 0.4: what Yadav et al. 2023 take where nothing can be validated.
    defaults={"scale": 0.4, "normalize": False},
)
