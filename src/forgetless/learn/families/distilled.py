"""What the methods share that keep the old network's outputs on the new task's inputs."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from forgetless.learn.families.state import pack, unpack
from forgetless.learn.method import Method
from forgetless.learn.network import Network, OldOutputs
from forgetless.learn.samples import Batch
from forgetless.learn.task import Task
from forgetless.model import batches


@dataclass
class Distilled(Method):
    """`λ Σ_k D(z_k, z*_k)`: z_k the outputs for old task k now, z*_k those of the network before the present task.

    D is the objective's divergence: for classification `KL(softmax(z*/τ) ‖ softmax(z/τ))`. Both outputs are on the new
    task's inputs. Tasks with heads of their own have a term each. Tasks that share a head have the same outputs, which
    therefore count as often as there are old tasks; where the head has grown, the old network gives the new classes no
    probability. Memory: a copy of the network, inside a task.

    Attributes:
        strength: λ.
        temperature: τ.
    """

    strength: float = 1.0
    temperature: float = 2.0
    _teacher: Network | None = field(default=None, init=False, repr=False)
    _model: Network | None = field(default=None, init=False, repr=False)
    _task: Task | None = field(default=None, init=False, repr=False)
    _old: list[OldOutputs] = field(default_factory=list, init=False, repr=False)
    _features: Tensor | None = field(default=None, init=False, repr=False)
    _hook: RemovableHandle | None = field(default=None, init=False, repr=False)

    def begin(self, model: Network, task: Task, optimizer: Optimizer) -> None:
        """Copy the network as it is, if it has learned a task, and register a hook for the backbone's features."""
        if not self.strength or len(model.tasks) < 2:
            return
        self._teacher = copy.deepcopy(model).eval().requires_grad_(False)
        self._model, self._task, self._old = model, task, model.outputs_before(task.name)
        self._hook = model.backbone.register_forward_hook(self._see)

    def penalty(self, batch: Batch) -> Tensor | None:
        """How far the old outputs have moved, from the features of the loop's own pass over the batch."""
        if self._teacher is None:
            return None
        features, self._features = self._features, None
        assert features is not None
        with torch.no_grad():
            remembered = self._teacher.backbone(batches.inputs(batch))
        return self.strength * self.distance(features, remembered)

    def distance(self, features: Tensor, remembered: Tensor) -> Tensor:
        """How far the outputs for a batch are from what they were, summed over all old tasks; a scalar.

        Args:
            features: of the backbone now, `[N, …, features]`.
            remembered: of the backbone before the task, `[N, …, features]`.
        """
        assert self._teacher is not None
        assert self._model is not None
        assert self._task is not None
        total = features.new_zeros(())
        for old in self._old:
            now = self._model.head(old.task)(features)
            then = self._teacher.head(old.task)(remembered)[..., : old.width]
            total = total + old.tasks * self._task.objective.divergence(now, then, self.temperature)
        return total

    def end(self, model: Network, task: Task) -> None:
        """Drop the copy: the next task makes its own."""
        if self._hook is not None:
            self._hook.remove()
        self._teacher, self._model, self._task, self._features, self._hook = None, None, None, None, None
        self._old = []

    def state(self) -> dict[str, Tensor]:
        """Inside a task, the copy."""
        return {} if self._teacher is None else pack({"before": self._teacher.state_dict()})

    def load_state(self, model: Network, tensors: dict[str, Tensor], tasks: Sequence[Task] = ()) -> None:
        """Take the copy back."""
        if self._teacher is not None:
            self._teacher.load_state_dict(unpack(tensors).get("before", {}))

    def _see(self, backbone: object, inputs: object, features: Tensor) -> None:
        # The first pass of a step is the loop's own; replayed samples come after it.
        if self._features is None and torch.is_grad_enabled():
            self._features = features
