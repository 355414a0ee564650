"""MAS measured anew: Ω of all tasks so far on the current network, from unlabeled samples of each.

Aljundi, Babiloni, Elhoseiny, Rohrbach, Tuytelaars, "Memory Aware Synapses: Learning what (not) to forget", ECCV 2018,
arXiv 1711.09601; the protocol of the authors' demonstration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from forgetless.learn.families.anchored import Anchored
from forgetless.learn.families.state import Tensors, from_leaves, leaves, pack, unpack
from forgetless.learn.method import Strength
from forgetless.learn.network import Network
from forgetless.learn.task import Task
from forgetless.measure.estimators.mas import mas
from forgetless.measure.importance import Importance
from forgetless.model import batches


@dataclass
class MASRemeasured(Anchored):
    """`Ω = Σ_k 1/N Σ_n |∂‖F_k(x_kn)‖²/∂θ|`, when every task ends: F_k the current network under the head of task k.

    `mas` adds the Ω that was measured when each task was learned; this method measures all tasks again on the current
    network. Needs old samples, but no labels. Memory: θ*, Ω, and `memory` samples of every task, which grows.

    Differences from the authors' code: the modulus is taken per sample, and the penalty acts as a proximal step.

    Attributes:
        strength: λ; the paper's 1.
        memory: the most samples kept of each task; 0 for all, as there.
    """

    name: ClassVar[str] = "mas-remeasured"
    strength: Strength = 1.0
    memory: int = 0
    _kept: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def measure(self, model: Network, task: Task) -> Importance:
        """The sum over tasks of Eq. 2, on the current network."""
        sums: Tensors = {}
        for name, inputs in self._kept.items():
            forward = partial(_answer, task=name)
            found = mas(model, inputs, forward=forward, exclude=model.unshared, progress=False)
            for parameter, mean in found.mean().items():
                sums[parameter] = sums[parameter] + mean if parameter in sums else mean
        return Importance(sums, 1, self.name)

    def end(self, model: Network, task: Task) -> None:
        """Keep samples of the task, measure all tasks anew, and anchor the network to the current weights."""
        self.anchor(model).detach()
        size = len(task.samples)
        chosen = torch.randperm(size)[: self.memory or size].sort().values
        inputs = batches.inputs(task.samples.take(chosen))
        self._kept = dict(sorted({**self._kept, task.name: inputs}.items()))
        self.renew(model, self.measure(model, task))

    def state(self) -> dict[str, Tensor]:
        """θ*, Ω and the samples."""
        return {**super().state(), **pack({"inputs": {name: leaves(inputs) for name, inputs in self._kept.items()}})}

    def load_state(self, model: Network, tensors: dict[str, Tensor], tasks: Sequence[Task] = ()) -> None:
        """Take all of them back."""
        super().load_state(model, tensors, tasks)
        kept = unpack(tensors).get("inputs", {})
        self._kept = {name: from_leaves(each) for name, each in sorted(kept.items())}


def _answer(network: nn.Module, inputs: Any, task: str) -> Any:
    return network(inputs, task)
