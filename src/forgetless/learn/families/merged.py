"""What the methods that merge the weights of tasks share: they differ in how much each task's weights count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim import Optimizer

from forgetless.learn.families.anchored import Anchored, uniform
from forgetless.learn.families.state import Tensors, corner, on_device_of, pack, padded, unpack
from forgetless.learn.network import Network
from forgetless.learn.task import Task
from forgetless.model.parameters import trainable


@dataclass
class Merged(Anchored):
    """`θ = Σ_k P_k θ_k / Σ_k P_k` after every task: θ_k the weights when task k ended, P_k their precision.

    Training of the next task starts from θ_k, not from the merged weights (weight-transfer), under `λ Σ (θ − θ_k)²`
    (L2-transfer), which keeps the tasks' weights close enough for merging. Heads that belong to one task are not
    merged. Memory: θ_k, two sums over tasks, and the anchor.

    Attributes:
        strength: λ of L2-transfer; 0 is weight-transfer alone.
    """

    strength: float = 0.01
    _latest: Tensors = field(default_factory=dict, init=False, repr=False)
    _mass: Tensors = field(default_factory=dict, init=False, repr=False)
    _moment: Tensors = field(default_factory=dict, init=False, repr=False)

    def precision(self, model: Network, task: Task) -> Tensors:
        """P_k of the task that has just been learned, by parameter name."""
        raise NotImplementedError

    def begin(self, model: Network, task: Task, optimizer: Optimizer) -> None:
        """Go back to the weights of the last task, and anchor the network to them."""
        shared = trainable(model, exclude=model.unshared)
        with torch.no_grad():
            for name, weights in self._latest.items():
                shared[name][corner(weights)] = weights
        self.renew(model, uniform(model, task, self.name) if model.is_trained else None)
        super().begin(model, task, optimizer)

    def end(self, model: Network, task: Task) -> None:
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
        return {
            **super().state(),
            **pack({"latest": self._latest, "mass": self._mass, "moment": self._moment}),
        }

    def load_state(self, model: Network, tensors: dict[str, Tensor], tasks: Sequence[Task] = ()) -> None:
        """Take all of them back."""
        super().load_state(model, tensors, tasks)
        kept = on_device_of(model, unpack(tensors))
        self._latest, self._mass, self._moment = (kept.get(each, {}) for each in ("latest", "mass", "moment"))
