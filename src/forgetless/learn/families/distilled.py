"""What the methods share that keep the old network's answers to the new inputs."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from forgetless.learn.heads import MultiHead
from forgetless.learn.task import Method, Task


@dataclass
class Distilled(Method):
    """`λ Σ_old KL(softmax(z*/τ) ‖ softmax(z/τ))`: z the old answers now, z* those of the network before the task.

    Both on the new task's inputs, a term for every old task. Tasks with heads of their own have an answer each. Tasks
    that share a head have the same, which therefore counts as often as there are old tasks; where the head has grown,
    the old network gives the new classes no probability. Memory: a copy of the network, inside a task.

    Attributes:
        strength: λ.
        temperature: τ.
    """

    strength: float = 1.0
    temperature: float = 2.0
    _teacher: MultiHead | None = field(default=None, init=False, repr=False)
    _model: MultiHead | None = field(default=None, init=False, repr=False)
    _widths: dict[str, int] = field(default_factory=dict, init=False, repr=False)
    _times: int = field(default=1, init=False, repr=False)
    _features: Tensor | None = field(default=None, init=False, repr=False)
    _hook: RemovableHandle | None = field(default=None, init=False, repr=False)

    def begin(self, model: MultiHead, task: Task, optimizer: Optimizer) -> None:
        """Copy the network as it is, if it has learned a task, and listen to the backbone."""
        if not self.strength or model.tasks < 2:
            return
        self._teacher = copy.deepcopy(model).eval().requires_grad_(False)
        self._model = model
        new = model.head(task.name)
        self._widths = {key: head.out_features for key, head in _linear(model).items()}  # of the answers to be kept
        if model.scenario != "domain":
            self._widths = {
                key: model.first(task.name) if model.heads[key] is new else width for key, width in self._widths.items()
            }
        self._times = 1 if model.scenario == "task" else model.tasks - 1
        self._hook = model.backbone.register_forward_hook(self._listen)

    def penalty(self, inputs: Tensor, labels: Tensor, logits: Tensor) -> Tensor | None:
        """How far the old answers have moved, from the features of the pass that gave `logits`."""
        if self._teacher is None:
            return None
        features, self._features = self._features, None
        assert features is not None
        with torch.no_grad():
            remembered = self._teacher.backbone(inputs)
        return self.strength * self.distance(features, remembered)

    def distance(self, features: Tensor, remembered: Tensor) -> Tensor:
        """How far the answers to a batch are from what they were, over all old tasks.

        Args:
            features: of the backbone now, `[N, features]`.
            remembered: of the backbone before the task, `[N, features]`.
        """
        assert self._teacher is not None
        assert self._model is not None
        total = features.new_zeros(())
        for key, width in self._widths.items():
            if width:
                now = F.log_softmax(self._model.heads[key](features) / self.temperature, 1)[:, :width]
                then = F.log_softmax(self._teacher.heads[key](remembered)[:, :width] / self.temperature, 1)
                total = total + F.kl_div(now, then, reduction="batchmean", log_target=True)
        return self._times * total

    def end(self, model: MultiHead, task: Task) -> None:
        """Let the copy go: the next task takes its own."""
        if self._hook is not None:
            self._hook.remove()
        self._teacher, self._model, self._features, self._hook = None, None, None, None
        self._widths = {}

    def state(self) -> dict[str, Tensor]:
        """Inside a task, the copy."""
        teacher = {} if self._teacher is None else self._teacher.state_dict()
        return {f"before.{name}": tensor for name, tensor in teacher.items()}

    def load_state(self, model: MultiHead, tensors: dict[str, Tensor]) -> None:
        """Take the copy back."""
        if self._teacher is not None:
            taken = {k.removeprefix("before."): v for k, v in tensors.items() if k.startswith("before.")}
            self._teacher.load_state_dict(taken)

    def _listen(self, backbone: object, inputs: object, features: Tensor) -> None:
        # The first pass of a step is the loop's own; what a memory recalls comes after it.
        if self._features is None and torch.is_grad_enabled():
            self._features = features


def _linear(model: MultiHead) -> dict[str, torch.nn.Linear]:
    return {key: head for key, head in model.heads.items() if isinstance(head, torch.nn.Linear)}
