"""TIES: trim the task vectors, elect a sign for every element, average what agrees with it.

Yadav, Tam, Choshen, Raffel, Bansal, "TIES-Merging: Resolving Interference When Merging Models", NeurIPS 2023, arXiv
2306.01708. k model:

    trim   τ_k = θ_k − θ_base, the ⌊density · numel⌋ largest |τ_k| of the tensor kept, the others 0
    elect  γ = sign(Σ_k w_k τ_k)
    merge  θ = θ_base + λ Σ_{k: sign(w_k τ_k) = γ} w_k τ_k / Σ_{k: sign(w_k τ_k) = γ} w_k

Difference from the paper: each tensor is trimmed by itself, as mergekit does, not all weights of a model together; a
checkpoint can then be read one tensor at a time.
"""

from __future__ import annotations

from forgetless.edit.merging.parts.deltas import agreeing, trimmed
from forgetless.edit.merging.parts.method import Method

METHOD = Method(
    "ties",
    "θ = θ_base + λ mean_k {trim(τ_k) : its sign is that of Σ_k w_k trim(τ_k)}",
    "Yadav et al. 2023 (arXiv 2306.01708)",
    agreeing,
    trimmed,
    needs_base=True,
    # The paper's, where nothing can be validated.
    defaults={"density": 0.2, "scale": 1.0, "normalize": True, "majority": "sum"},
)
