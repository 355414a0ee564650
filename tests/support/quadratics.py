"""Quadratic losses whose penalized optima are known: where an optimizer must end with the pull, at every strength."""

from __future__ import annotations

import torch
from torch import Tensor, nn, optim

from forgetless.measure.importance import Importance
from forgetless.protect.anchor import Anchor

STRENGTHS = 10.0 ** torch.arange(-6, 9, dtype=torch.float64)
SIZE = 6


class Quadratic(nn.Module):
    """½ (θ−c)ᵀ H (θ−c) in every row, H dense; the rows are anchored at `start` with Ω times one strength each."""

    def __init__(self, free: bool) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        root = torch.randn(SIZE, SIZE, generator=generator, dtype=torch.float64)
        self.curvature = root @ root.T / SIZE + 0.5 * torch.eye(SIZE, dtype=torch.float64)
        self.center = torch.randn(SIZE, generator=generator, dtype=torch.float64)
        self.start = torch.randn(SIZE, generator=generator, dtype=torch.float64)
        self.omega = 0.2 + torch.rand(SIZE, generator=generator, dtype=torch.float64)
        if free:
            self.omega[0] = 0
        self.rows = nn.Parameter(self.start.expand(len(STRENGTHS), SIZE).clone())

    def gradient(self) -> Tensor:
        return (self.rows.detach() - self.center) @ self.curvature

    def optimum(self, decay: float) -> Tensor:
        """Of ½ (θ−c)ᵀ H (θ−c) + ½ decay θ² + λ Σ Ω (θ−θ*)², solved directly."""
        solved = []
        for strength in STRENGTHS:
            pull = 2 * strength * self.omega
            matrix = self.curvature + torch.diag(pull + decay)
            solved.append(torch.linalg.solve(matrix, self.curvature @ self.center + pull * self.start))
        return torch.stack(solved)

    def settle(self, optimizer: optim.Optimizer, steps: int, decades: float, noise: float = 0.0) -> None:
        """Train with the pull; the learning rate is constant at first and then falls by `decades`."""
        importance = Importance({"rows": STRENGTHS[:, None] * self.omega}, 1.0)
        Anchor(self, importance, 1.0).attach(optimizer, how="pull")
        group = optimizer.param_groups[0]
        lr, sign = group["lr"], -1 if group.get("maximize") else 1
        for step in range(steps):
            group["lr"] = lr * 10 ** (-decades * max(0.0, step / steps - 0.3) / 0.7)
            self.rows.grad = sign * (self.gradient() + noise * (-1) ** step)
            optimizer.step()
