"""Learning without Forgetting: keep the old heads' answers to the new inputs.

Li and Hoiem, "Learning without Forgetting", ECCV 2016, arXiv 1606.09282.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from forgetless.heads import MultiHead
from forgetless.task import Method, Task


@dataclass
class LwF(Method):
    """`λ Σ_old KL(softmax(z*/τ) ‖ softmax(z/τ))`: z the old heads' logits now, z* those of the network before the task.

    Both on the new task's inputs. The gradient is that of the paper's cross-entropy between the two. Old heads are
    trained along, as in the paper. Memory: a copy of the network.

    What differs from the paper: the copy answers in eval mode during training, where the paper records its answers once
    (with augmented inputs they would not fit); the new head's own warm-up is the recipe's warm start.

    Attributes:
        strength: λ; the paper's 1.
        temperature: τ; the paper's 2.
    """

    name: ClassVar[str] = "lwf"
    strength: float = 1.0
    temperature: float = 2.0
    _teacher: MultiHead | None = field(default=None, init=False, repr=False)
    _heads: list[tuple[nn.Module, nn.Module]] = field(default_factory=list, init=False, repr=False)
    _features: Tensor | None = field(default=None, init=False, repr=False)
    _hook: RemovableHandle | None = field(default=None, init=False, repr=False)

    def begin(self, model: MultiHead, task: Task, optimizer: Optimizer) -> None:
        """Copy the network as it is, if it has old heads, and listen to the trunk."""
        if not self.strength or len(model.heads) < 2:
            return
        self._teacher = copy.deepcopy(model).eval().requires_grad_(False)
        new = model.head(task.name)
        pairs = zip(model.heads.values(), self._teacher.heads.values(), strict=True)
        self._heads = [(head, taught) for head, taught in pairs if head is not new]
        self._hook = model.trunk.register_forward_hook(self._listen)

    def penalty(self, inputs: Tensor, labels: Tensor, logits: Tensor) -> Tensor | None:
        """How far the old heads' answers have moved, from the features of the pass that gave `logits`."""
        if self._teacher is None:
            return None
        assert self._features is not None
        with torch.no_grad():
            remembered = self._teacher.trunk(inputs)
        total = logits.new_zeros(())
        for head, taught in self._heads:
            now = F.log_softmax(head(self._features) / self.temperature, 1)
            then = F.log_softmax(taught(remembered) / self.temperature, 1)
            total = total + F.kl_div(now, then, reduction="batchmean", log_target=True)
        return self.strength * total

    def end(self, model: MultiHead, task: Task) -> None:
        """Let the copy go: the next task takes its own."""
        if self._hook is not None:
            self._hook.remove()
        self._teacher, self._heads, self._features, self._hook = None, [], None, None

    def state(self) -> dict[str, Tensor]:
        """Inside a task, the copy."""
        return {} if self._teacher is None else self._teacher.state_dict()

    def load_state(self, model: MultiHead, tensors: dict[str, Tensor]) -> None:
        """Take the copy back."""
        if self._teacher is not None:
            self._teacher.load_state_dict(tensors)

    def _listen(self, trunk: nn.Module, inputs: tuple[Tensor, ...], features: Tensor) -> None:
        self._features = features
