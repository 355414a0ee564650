"""Incremental Moment Matching: learn each task in turn, then merge the weights of all.

Lee, Kim, Jun, Ha, Zhang, "Overcoming Catastrophic Forgetting by Incremental Moment Matching", NeurIPS 2017,
arXiv 1703.08475.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from forgetless.learn.families.anchored import Anchored, alike, padded
from forgetless.learn.heads import MultiHead
from forgetless.learn.task import Task
from forgetless.measure.estimators.fisher import fisher
from forgetless.model.parameters import trainable
from forgetless.protect.anchor import Anchor

_LEAST = 1e-12  # precision of a weight that no task is sure of: then the mean over tasks

Tensors = dict[str, Tensor]


@dataclass
class IMMMean(Anchored):
    """`θ = 1/K Σ_k θ_k`: the mean of the weights at the ends of all tasks, each learned from the ones before it.

    Learning goes on from θ_k, not from the merged weights (weight-transfer), under `λ Σ (θ − θ_k)²` (L2-transfer),
    which keeps the tasks' weights close enough for merging. Heads of single tasks are not merged. Memory: θ_k, the sum
    over tasks, and the anchor.

    What differs from the paper: tasks weigh alike; L2-transfer writes λ, not λ/2; batch-norm statistics are not merged,
    they are those of the last task.

    Attributes:
        strength: λ of L2-transfer; 0.01, where De Lange et al. 2021 begin to search; 0 is weight-transfer alone.
    """

    name: ClassVar[str] = "imm-mean"
    strength: float = 0.01
    _latest: Tensors = field(default_factory=dict, init=False, repr=False)
    _mass: Tensors = field(default_factory=dict, init=False, repr=False)
    _moment: Tensors = field(default_factory=dict, init=False, repr=False)

    def begin(self, model: MultiHead, task: Task, optimizer: Optimizer) -> None:
        """Go back to the weights of the last task, and hold to them."""
        shared = trainable(model, exclude=model.unshared)
        with torch.no_grad():
            for name, weights in self._latest.items():
                shared[name][tuple(slice(size) for size in weights.shape)] = weights
        self._anchor = Anchor(model, alike(model, task, self.name) if model.knows_something else None, self.strength)
        super().begin(model, task, optimizer)

    def precision(self, model: MultiHead, task: Task) -> Tensors:
        """How sure the task is of each weight, by parameter name."""
        return {name: torch.ones_like(weights) for name, weights in trainable(model, exclude=model.unshared).items()}

    def end(self, model: MultiHead, task: Task) -> None:
        """Add the task's weights to the sum, and put the merged ones into the network."""
        self.anchor(model).detach()
        precision = self.precision(model, task)
        with torch.no_grad():
            for name, weights in trainable(model, exclude=model.unshared).items():
                self._latest[name] = weights.clone()
                mass, moment = precision[name], precision[name] * weights
                if name in self._mass:
                    mass = mass + padded(self._mass[name], weights)
                    moment = moment + padded(self._moment[name], weights)
                self._mass[name], self._moment[name] = mass, moment
                weights.copy_(moment / mass)

    def state(self) -> dict[str, Tensor]:
        """θ_k, the sums, and the anchor."""
        kinds = {"latest": self._latest, "mass": self._mass, "moment": self._moment}
        return {
            **super().state(),
            **{f"{kind}.{name}": each for kind, some in kinds.items() for name, each in some.items()},
        }

    def load_state(self, model: MultiHead, tensors: dict[str, Tensor]) -> None:
        """Take all of them back."""
        rest, device = dict(tensors), next(model.parameters()).device
        for kind, named in (("latest", self._latest), ("mass", self._mass), ("moment", self._moment)):
            for key in [key for key in rest if key.startswith(f"{kind}.")]:
                named[key.removeprefix(f"{kind}.")] = rest.pop(key).to(device)
        super().load_state(model, rest)


@dataclass
class IMMMode(IMMMean):
    """`θ = Σ_k F_k θ_k / Σ_k F_k`: the mode of the mixture, F_k the Fisher information when task k ended.

    All else as in `imm-mean`.

    What differs from the paper: F is exact per sample; as for `imm-mean` besides.

    Attributes:
        strength: λ of L2-transfer; 0.01, where De Lange et al. 2021 begin to search; 0 is weight-transfer alone.
        classes: up to as many, F is the expectation over all labels, at a backward pass each; beyond, over one drawn.
    """

    name: ClassVar[str] = "imm-mode"
    classes: int = 10

    def precision(self, model: MultiHead, task: Task) -> Tensors:
        """The Fisher information on the task's training inputs."""
        found = fisher(
            model,
            task.train[0],
            labels="expected" if model.head(task.name).out_features <= self.classes else "sampled",
            forward=lambda network, inputs: network(inputs, task.name),
            exclude=model.unshared,
            progress=False,
        )
        return {name: information + _LEAST for name, information in found.mean().items()}
