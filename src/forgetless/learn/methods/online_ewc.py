"""Online Elastic Weight Consolidation: one anchor, at the weights of the last task.

Schwarz et al., "Progress & Compress: A scalable framework for continual learning", ICML 2018, arXiv 1805.06370.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from forgetless.learn.families.anchored import Anchored
from forgetless.learn.families.information import information
from forgetless.learn.method import Strength
from forgetless.learn.network import Network
from forgetless.learn.task import Task
from forgetless.measure.importance import Importance


@dataclass
class OnlineEWC(Anchored):
    """`λ Σ Ω (θ − θ*)²` with `Ω ← γ Ω + F` after every task, θ* the weights of the last.

    F as in `ewc`.

    Differences from the paper: it writes `λ/2`, so that its λ is twice ours; F is exact per sample.

    Attributes:
        strength: λ; 400, the coefficient of Hsu et al. 2018 for split MNIST.
        gamma: γ, by which the Ω of earlier tasks decays; 1, as there.
        classes: up to as many, F is the expectation over all labels, at a backward pass each; beyond, one label is
            drawn for each sample.
    """

    name: ClassVar[str] = "online-ewc"
    strength: Strength = 400.0
    gamma: float = 1.0
    classes: int = 10

    def measure(self, model: Network, task: Task) -> Importance:
        """F on the task's training inputs."""
        return information(model, task, self.classes)

    def end(self, model: Network, task: Task) -> None:
        """Let the Ω of earlier tasks decay, add F, and move θ* to the current weights."""
        anchor = self.anchor(model)
        anchor.detach()
        anchor.consolidate(self.measure(model, task), self.gamma)
