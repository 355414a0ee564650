"""Networks for facts: a pretrained backbone whose end forks into an embedding for each part of a fact."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from forgetless.lab.networks.parts.forked import Fork
from forgetless.lab.networks.pretrained import pretrained
from forgetless.learn.heads import SharedHead


def embedding(name: str, parts: Sequence[str], dimensions: int, seed: int) -> SharedHead:
    """A pretrained backbone and one linear embedding of its features per part; all tasks share them.

    `F_p(x) = W_p · backbone(x) + b_p`, W_p `[D, features]`. Like any other layer the embeddings are protected.

    Args:
        name: the backbone, one of `forgetless.lab.networks.pretrained.NETWORKS`.
        parts: what the branches are called.
        dimensions: D, of the vectors.
        seed: draws the first weights of the embeddings.

    Raises:
        ForgetlessError: no network has that name, or its weights are not installed or damaged.
    """
    start = pretrained(name)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        head = Fork({part: nn.Linear(start.features, dimensions) for part in parts})
    return SharedHead(start.backbone, head, len(parts) * dimensions, pretrained=True)
