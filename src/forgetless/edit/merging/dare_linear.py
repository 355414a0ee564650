"""DARE with task arithmetic: drop elements of the task vectors at random, rescale the rest, add them up.

Yu, Yu, Yu, Huang, Li, "Language Models are Super Mario: Absorbing Abilities from Homologous Models as a Free Lunch",
ICML 2024, arXiv 2311.03099. k model, m_k a random mask whose elements are 1 with probability `density`:
`θ = θ_base + λ Σ_k w_k m_k ⊙ τ_k / density`, so that the expectation is task arithmetic's. The paper's drop rate p is
1 − density.
"""

from __future__ import annotations

from forgetless.edit.merging.parts.deltas import added, dropped
from forgetless.edit.merging.parts.method import Method

METHOD = Method(
    "dare-linear",
    "θ = θ_base + λ Σ_k w_k m_k ⊙ τ_k / density, m_k random",
    "Yu et al. 2024 (arXiv 2311.03099)",
    added,
    dropped,
    needs_base=True,
    # λ as in task arithmetic; the paper's density depends on the models.
    defaults={"density": 0.5, "scale": 0.4, "normalize": False, "rescale": "density", "seed": 0},
)
