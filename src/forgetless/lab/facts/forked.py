"""The end of a network for facts: branches side by side, an embedding for each part of a fact."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from forgetless.lab.datasets.reading.fact import PARTS
from forgetless.learn.heads import SharedHead


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


def forked(backbone: nn.Module, features: int, dimensions: int, seed: int) -> SharedHead:
    """A backbone with one linear embedding for each part, `W_p · backbone(x) + b_p`, W_p `[D, features]`.

    Args:
        backbone: a trained module from pictures to features `[N, features]`.
        features: how many.
        dimensions: D, of the vectors.
        seed: draws the first weights of the embeddings.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        head = Fork({part: nn.Linear(features, dimensions) for part in PARTS})
    return SharedHead(backbone, head, len(PARTS) * dimensions, pretrained=True)
