"""Elastic Weight Consolidation, an anchor per task or a single one: a weight matters as much as to the likelihood.

Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 2017, arXiv 1612.00796 (separate);
Schwarz et al., "Progress & Compress", ICML 2018, arXiv 1805.06370 (online).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from forgetless.learn.families.anchored import Anchored, padded
from forgetless.learn.heads import MultiHead
from forgetless.learn.task import Task
from forgetless.measure.estimators.fisher import fisher
from forgetless.measure.importance import Importance
from forgetless.protect.anchor import Anchor


def information(model: MultiHead, task: Task, most: int) -> Importance:
    """The diagonal Fisher information on the task's training inputs, exact per sample.

    Args:
        model: the network that has learned the task.
        task: gives its training inputs; labels are not used.
        most: up to as many classes, the expectation over all of them; beyond, one label drawn for each sample.
    """
    expected = model.head(task.name).out_features <= most
    return fisher(
        model,
        task.train[0],
        labels="expected" if expected else "sampled",
        forward=lambda network, inputs: network(inputs, task.name),
        exclude=model.unshared,
        progress=False,
    )


@dataclass
class EWC(Anchored):
    """`λ Σ_k Σ F_k (θ − θ_k)²`: F_k the Fisher information when task k ended, θ_k the weights then.

    `F = 1/N Σ_n Σ_c p(c|x_n) (∂ log p(c|x_n)/∂θ)²`, the square taken per sample. The anchors of all tasks are kept as
    the one that they add up to, exactly: memory does not grow.

    What differs from the paper: it writes `λ/2`, so that its λ is twice ours; public codes square the gradient of a
    batch, or take the label the network holds likeliest for the one that it predicts.

    Attributes:
        strength: λ; 100, the coefficient of Hsu et al. 2018 for split MNIST. The paper searches it for each stream.
        classes: up to as many, F is the expectation over all labels, at a backward pass each; beyond, over one drawn.
    """

    name: ClassVar[str] = "ewc"
    strength: float = 100.0
    classes: int = 10

    def measure(self, model: MultiHead, task: Task) -> Importance:
        """F on the task's training inputs."""
        return information(model, task, self.classes)

    def end(self, model: MultiHead, task: Task) -> None:
        """Measure the task's F, and add an anchor at the current weights to those there are."""
        earlier = self.anchor(model)
        earlier.detach()
        if not self.strength:
            return
        latest = Anchor(model, self.measure(model, task), self.strength)
        if earlier.weights:
            state = earlier.state_dict()
            for name, weights in latest.weights.items():  # a head may have grown
                state[f"weights.{name}"] = padded(state[f"weights.{name}"], weights)
                state[f"importance.{name}"] = padded(state[f"importance.{name}"], weights)
            earlier.load_state_dict(state)
            latest = earlier.merge(latest)
        self._anchor = latest


@dataclass
class OnlineEWC(Anchored):
    """`λ Σ Ω (θ − θ*)²` with `Ω ← γ Ω + F` after every task, θ* the weights of the last.

    F as in `ewc`.

    What differs from the paper: it writes `λ/2`, so that its λ is twice ours; F is exact per sample.

    Attributes:
        strength: λ; 400, the coefficient of Hsu et al. 2018 for split MNIST.
        gamma: γ, which lets old tasks fade; 1, as there.
        classes: up to as many, F is the expectation over all labels, at a backward pass each; beyond, over one drawn.
    """

    name: ClassVar[str] = "online-ewc"
    strength: float = 400.0
    gamma: float = 1.0
    classes: int = 10

    def measure(self, model: MultiHead, task: Task) -> Importance:
        """F on the task's training inputs."""
        return information(model, task, self.classes)

    def end(self, model: MultiHead, task: Task) -> None:
        """Let the tasks so far fade, add F, and move θ* to the current weights."""
        anchor = self.anchor(model)
        anchor.detach()
        anchor.consolidate(self.measure(model, task), self.gamma)
