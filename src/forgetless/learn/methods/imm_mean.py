"""Incremental Moment Matching by the mean: learn each task in turn, then average the weights of all.

Lee, Kim, Jun, Ha, Zhang, "Overcoming Catastrophic Forgetting by Incremental Moment Matching", NeurIPS 2017,
arXiv 1703.08475.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from forgetless.learn.families.merged import Merged
from forgetless.learn.families.state import Tensors
from forgetless.learn.network import Network
from forgetless.learn.task import Task
from forgetless.model.parameters import trainable


@dataclass
class IMMMean(Merged):
    """`θ = 1/K Σ_k θ_k`: the mean of the weights at the ends of all tasks, each learned from the one before it.

    Training of the next task starts from θ_k, not from the merged weights (weight-transfer), under `λ Σ (θ − θ_k)²`
    (L2-transfer), which keeps the tasks' weights close enough for merging. Heads that belong to one task are not
    merged. Memory: θ_k, the sum over tasks, and the anchor.

    Differences from the paper: all tasks have the same weight; L2-transfer writes λ, not λ/2; batch-norm statistics are
    not merged, they are those of the last task.

    Attributes:
        strength: λ of L2-transfer; 0.01, where De Lange et al. 2021 begin to search; 0 is weight-transfer alone.
    """

    name: ClassVar[str] = "imm-mean"
    strength: float = 0.01

    def precision(self, model: Network, task: Task) -> Tensors:
        """1 for every weight."""
        return {name: torch.ones_like(weights) for name, weights in trainable(model, exclude=model.unshared).items()}
