"""DARE with TIES: drop elements of the task vectors at random, rescale the rest, merge those whose sign is elected.

Yu, Yu, Yu, Huang, Li, "Language Models are Super Mario: Absorbing Abilities from Homologous Models as a Free Lunch",
ICML 2024, arXiv 2311.03099; Yadav et al., "TIES-Merging", NeurIPS 2023, arXiv 2306.01708. As TIES, with the random mask
of DARE instead of the trimming by size.
"""

from __future__ import annotations

from forgetless.edit.merging.parts.deltas import agreeing, dropped
from forgetless.edit.merging.parts.method import Method

METHOD = Method(
    "dare-ties",
    "θ = θ_base + λ Σ_k w_k {m_k ⊙ τ_k / density : its sign is elected}, m_k random",
    "Yu et al. 2024 (arXiv 2311.03099), Yadav et al. 2023 (arXiv 2306.01708)",
    agreeing,
    dropped,
    needs_base=True,
    defaults={
        "density": 0.5,
        "scale": 0.4,
        "normalize": False,
        "majority": "sum",
        "rescale": "density",
        "seed": 0,
    },
)
