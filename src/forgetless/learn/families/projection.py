"""Gradients that do not go against another gradient: what A-GEM does to every step.

Chaudhry, Ranzato, Rohrbach, Elhoseiny, "Efficient Lifelong Learning with A-GEM", ICLR 2019, arXiv 1812.00420.
"""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def away_from(weights: list[torch.nn.Parameter], reference: tuple[Tensor | None, ...]) -> None:
    """Take from the gradients of `weights` the part that goes against `reference`; in place, as one vector.

    Args:
        weights: parameters with gradients.
        reference: a gradient for each, or None for one that has no part in it.
    """
    known = [(w.grad, r) for w, r in zip(weights, reference, strict=True) if w.grad is not None and r is not None]
    dot = sum((torch.sum(g * r) for g, r in known), start=torch.zeros(()))
    if not dot < 0:
        return
    square = sum((torch.sum(r * r) for r in reference if r is not None), start=torch.zeros(()))
    for w, r in zip(weights, reference, strict=True):
        if r is not None:
            w.grad = -(dot / square) * r if w.grad is None else w.grad - (dot / square) * r
