"""MAS measured anew: Ω of all tasks so far on the network as it is now, from unlabeled samples of each.

Aljundi, Babiloni, Elhoseiny, Rohrbach, Tuytelaars, "Memory Aware Synapses: Learning what (not) to forget", ECCV 2018,
arXiv 1711.09601; the protocol of the authors' demonstration.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from forgetless.learn.families.anchored import Anchored
from forgetless.learn.heads import MultiHead
from forgetless.learn.task import Task
from forgetless.measure.estimators.mas import mas
from forgetless.measure.importance import Importance
from forgetless.protect.anchor import Anchor


@dataclass
class RemeasuredMAS(Anchored):
    """`Ω = Σ_k 1/N Σ_n |∂‖F_k(x_kn)‖²/∂θ|`, when every task ends: F_k the network now under the head of task k.

    Where `mas` adds what it found when each task was learned, this asks again what the network needs for all of them
    today. Needs old samples, but no labels. Memory: θ*, Ω, and `memory` samples of every task, which grows.

    What differs from the authors' code: the modulus is taken per sample, and the penalty acts as a pull after the step.

    Attributes:
        strength: λ; the paper's 1.
        memory: the most samples kept of each task; 0 for all, as there.
    """

    name: ClassVar[str] = "mas-remeasured"
    strength: float = 1.0
    memory: int = 0
    _kept: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    def measure(self, model: MultiHead, task: Task) -> Importance:
        """The sum over tasks of Eq. 2, on the network as it is."""
        sums: dict[str, Tensor] = {}
        for name, inputs in self._kept.items():
            found = mas(
                model,
                inputs,
                forward=lambda network, batch, name=name: network(batch, name),  # type: ignore[misc]
                exclude=model.unshared,
                progress=False,
            )
            for parameter, mean in found.mean().items():
                sums[parameter] = sums[parameter] + mean if parameter in sums else mean
        return Importance(sums, 1, self.name)

    def end(self, model: MultiHead, task: Task) -> None:
        """Keep samples of the task, measure all tasks anew, and hold to the current weights."""
        self.anchor(model).detach()
        inputs = task.train[0]
        chosen = torch.randperm(len(inputs))[: self.memory or len(inputs)].sort().values
        self._kept = dict(sorted({**self._kept, task.name: inputs[chosen]}.items()))
        self._anchor = Anchor(model, self.measure(model, task), self.strength)

    def state(self) -> dict[str, Tensor]:
        """θ*, Ω and the samples."""
        return {**super().state(), **{f"inputs.{name}": inputs for name, inputs in self._kept.items()}}

    def load_state(self, model: MultiHead, tensors: dict[str, Tensor]) -> None:
        """Take all of them back."""
        kept = {key: inputs for key, inputs in tensors.items() if key.startswith("inputs.")}
        self._kept = dict(sorted((key.removeprefix("inputs."), inputs) for key, inputs in kept.items()))
        super().load_state(model, {key: tensor for key, tensor in tensors.items() if key not in kept})
