"""A backbone whose end forks into branches: one output vector for each part of a fact."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Fork(nn.Module):
    """Branches side by side on the same features; their outputs are joined in the order of the branches.

    Args:
        branches: name → a module from features to outputs `[N, D_b]`.
    """

    def __init__(self, branches: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleDict(branches)

    def forward(self, features: Tensor) -> Tensor:
        """Outputs `[N, Σ_b D_b]`."""
        return torch.cat([branch(features) for branch in self.branches.values()], 1)
