"""Elastic Weight Consolidation: a weight matters as much as it matters to the likelihood.

Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 2017, arXiv 1612.00796.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from forgetless.learn.families.anchored import Anchored, is_automatic, with_strength
from forgetless.learn.families.information import information
from forgetless.learn.families.state import padded
from forgetless.learn.method import Strength
from forgetless.learn.network import Network
from forgetless.learn.task import Task
from forgetless.measure.importance import Importance
from forgetless.protect.anchor import Anchor


@dataclass
class EWC(Anchored):
    """`λ Σ_k Σ F_k (θ − θ_k)²`: F_k the Fisher information when task k ended, θ_k the weights then.

    `F = 1/N Σ_n Σ_c p(c|x_n) (∂ log p(c|x_n)/∂θ)²`, the square taken per sample. The anchors of all tasks are kept as
    one anchor with exactly the same sum: memory does not grow. Outputs that
    are no logits count as the means of Gaussians of unit variance: `F = 1/N Σ_n Σ_o (∂F_o/∂θ)²`.

    Differences from the paper: it writes `λ/2`, so that its λ is twice ours. Public codes square the gradient of a
    batch, or use the most likely label in place of the expectation.

    Attributes:
        strength: λ; 100, the coefficient of Hsu et al. 2018 for split MNIST. The paper searches it for each stream.
        classes: up to as many, F is the expectation over all labels, at a backward pass each; beyond, one label is
            drawn for each sample.
    """

    name: ClassVar[str] = "ewc"
    strength: Strength = 100.0
    classes: int = 10

    def measure(self, model: Network, task: Task) -> Importance:
        """F on the task's training inputs."""
        return information(model, task, self.classes)

    def end(self, model: Network, task: Task) -> None:
        """Measure the task's F, and add an anchor at the current weights to the earlier ones."""
        earlier = self.anchor(model)
        earlier.detach()
        found = earlier.strength if is_automatic(earlier) else 0.0
        if not self.strength:
            return
        automatic = isinstance(self.strength, str)
        latest = Anchor(model, self.measure(model, task), 1.0 if automatic else self.strength)
        if earlier.weights:
            state = earlier.state_dict()
            for name, weights in latest.weights.items():  # a head may have grown
                state[f"weights.{name}"] = padded(state[f"weights.{name}"], weights)
                state[f"importance.{name}"] = padded(state[f"importance.{name}"], weights)
            if automatic:  # Ω of all tasks on one scale, whatever λ was found for each
                state["strength"] = torch.ones_like(state["strength"])
            earlier.load_state_dict(state)
            latest = earlier.merge(latest)
        if automatic:
            latest = with_strength(model, latest, self.strength)
            latest.strength = found  # until it finds its own
        self._anchor = latest
