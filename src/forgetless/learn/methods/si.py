"""Synaptic Intelligence: a weight matters as much as its way through training lowered the loss.

Zenke, Poole, Ganguli, "Continual Learning Through Synaptic Intelligence", ICML 2017, arXiv 1703.04200.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from forgetless.learn.families.anchored import Anchored
from forgetless.learn.heads import MultiHead
from forgetless.learn.task import Task
from forgetless.measure.importance import Importance
from forgetless.model.parameters import trainable


@dataclass
class SI(Anchored):
    """`Ω = max(ω, 0) / ((θ_end − θ_start)² + ξ)` summed over tasks, `ω = −Σ_steps g · Δθ` along a task's training.

    g is the gradient of the task's loss alone, Δθ the whole step, pull included. Nothing is measured afterwards: Ω is a
    by-product of training, of the order of batches and of the learning rate too.

    What differs from the paper: the penalty acts as a pull after the step; where the recipe clips gradients, g is the
    clipped one; a weight whose way raised the loss gets Ω = 0, as an importance cannot be negative.

    Attributes:
        strength: λ, the paper's c; 1 there for split MNIST.
        damping: ξ, which bounds Ω where a weight hardly moved; 0.1 as in the code of Hsu et al. 2018.
    """

    name: ClassVar[str] = "si"
    strength: float = 1.0
    damping: float = 0.1
    _path: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)
    _start: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)
    _hook: RemovableHandle | None = field(default=None, init=False, repr=False)

    def begin(self, model: MultiHead, task: Task, optimizer: Optimizer) -> None:
        """Attach the anchor, and follow the path from here."""
        super().begin(model, task, optimizer)
        shared = trainable(model, exclude=model.unshared)
        self._start = {name: weights.detach().clone() for name, weights in shared.items()}
        self._path = {name: torch.zeros_like(weights) for name, weights in self._start.items()}
        before = {name: weights.clone() for name, weights in self._start.items()}

        @torch.no_grad()
        def follow(*_: object) -> None:
            for name, weights in shared.items():
                if weights.grad is not None:
                    self._path[name] -= weights.grad * (weights - before[name])
                    before[name].copy_(weights)

        # After the anchor's own hook, so that the pull is part of the way.
        self._hook = optimizer.register_step_post_hook(follow)

    def measure(self, model: MultiHead, task: Task) -> Importance:
        """Ω of the path that ends here."""
        assert self._hook is not None
        self._hook.remove()
        shared = trainable(model, exclude=model.unshared)
        sums = {
            name: path.clamp_min(0) / ((shared[name].detach() - self._start[name]).square() + self.damping)
            for name, path in self._path.items()
        }
        self._path, self._start = {}, {}
        return Importance(sums, 1, self.name)

    def state(self) -> dict[str, Tensor]:
        """θ* and Ω, and inside a task ω and where it started."""
        return {
            **super().state(),
            **{f"path.{name}": tensor for name, tensor in self._path.items()},
            **{f"start.{name}": tensor for name, tensor in self._start.items()},
        }

    def load_state(self, model: MultiHead, tensors: dict[str, Tensor]) -> None:
        """Take all of them back."""
        rest = dict(tensors)
        for kept, prefix in ((self._path, "path."), (self._start, "start.")):
            for key in [key for key in rest if key.startswith(prefix)]:
                kept[key.removeprefix(prefix)].copy_(rest.pop(key))
        super().load_state(model, rest)
