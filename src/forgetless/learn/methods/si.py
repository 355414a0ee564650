"""Synaptic Intelligence: a weight matters as much as its path through training lowered the loss.

Zenke, Poole, Ganguli, "Continual Learning Through Synaptic Intelligence", ICML 2017, arXiv 1703.04200.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor
from torch.optim import Optimizer

from forgetless.learn.families.anchored import Anchored
from forgetless.learn.families.state import pack, unpack
from forgetless.learn.method import Strength
from forgetless.learn.network import Network
from forgetless.learn.task import Task
from forgetless.measure.estimators.path_integral import PathIntegral
from forgetless.measure.importance import Importance


@dataclass
class SI(Anchored):
    """`Ω = max(ω, 0) / ((θ_end − θ_start)² + ξ)` summed over tasks, `ω = −Σ_steps g · Δθ` along a task's training.

    g is the gradient of the step's loss, with the penalties of other methods in a composition; Δθ is the whole step,
    the pull included. Nothing is measured afterwards: Ω is a by-product of training, so it depends on the order of
    batches and on the learning rate.

    Differences from the paper: the penalty acts as a proximal step; where the recipe clips gradients, g is the clipped
    one; a weight whose path raised the loss gets Ω = 0, because an importance cannot be negative.

    Attributes:
        strength: λ, the paper's c; 1 there for split MNIST.
        damping: ξ, which bounds Ω where a weight hardly moved; 0.1 as in the code of Hsu et al. 2018.
    """

    name: ClassVar[str] = "si"
    strength: Strength = 1.0
    damping: float = 0.1
    _path: PathIntegral | None = field(default=None, init=False, repr=False)

    def begin(self, model: Network, task: Task, optimizer: Optimizer) -> None:
        """Attach the anchor, and follow the path from here."""
        super().begin(model, task, optimizer)
        path = PathIntegral(model, damping=self.damping, gradient="step", exclude=model.unshared)
        self._path = path.attach(optimizer)

    def measure(self, model: Network, task: Task) -> Importance:
        """Ω of the path that ends here."""
        assert self._path is not None
        path, self._path = self._path, None
        path.detach()
        return path.importance()

    def state(self) -> dict[str, Tensor]:
        """θ* and Ω, and inside a task ω and the weights at its start."""
        path = {} if self._path is None else {"path": self._path.state()}
        return {**super().state(), **pack(path)}

    def load_state(self, model: Network, tensors: dict[str, Tensor], tasks: Sequence[Task] = ()) -> None:
        """Take all of them back."""
        super().load_state(model, tensors, tasks)
        if self._path is not None:
            self._path.load_state(unpack(tensors)["path"])
