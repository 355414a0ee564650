"""Incremental Moment Matching by the mode: merge the weights of all tasks by their Fisher information.

Lee, Kim, Jun, Ha, Zhang, "Overcoming Catastrophic Forgetting by Incremental Moment Matching", NeurIPS 2017,
arXiv 1703.08475.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from forgetless.learn.families.information import information
from forgetless.learn.families.merged import Merged
from forgetless.learn.families.state import Tensors
from forgetless.learn.network import Network
from forgetless.learn.task import Task

_LEAST = 1e-12  # precision of a weight whose information is 0 for all tasks: then the mean over tasks


@dataclass
class IMMMode(Merged):
    """`θ = Σ_k F_k θ_k / Σ_k F_k`: the mode of the mixture, F_k the Fisher information when task k ended.

    Everything else is as in `imm-mean`.

    Differences from the paper: F is exact per sample; those of `imm-mean`.

    Attributes:
        strength: λ of L2-transfer; 0.01, where De Lange et al. 2021 begin to search; 0 is weight-transfer alone.
        classes: up to as many, F is the expectation over all labels, at a backward pass each; beyond, one label is
            drawn for each sample.
    """

    name: ClassVar[str] = "imm-mode"
    strength: float = 0.01
    classes: int = 10

    def precision(self, model: Network, task: Task) -> Tensors:
        """The Fisher information on the task's training inputs."""
        found = information(model, task, self.classes).mean()
        return {name: mean + _LEAST for name, mean in found.items()}
