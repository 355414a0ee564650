"""One trunk, a linear head per task."""

from __future__ import annotations

from urllib.parse import quote

import torch
from torch import Tensor, nn

from forgetless.errors import ForgetlessError


class MultiHead(nn.Module):
    """A shared trunk and a linear head per task: `logits_k = W_k · trunk(x) + b_k`.

    Args:
        trunk: any module from a batch of inputs `[N, …]` to features `[N, features]`; it normalises its inputs itself.
        features: the width of its output.
        pretrained: whether the trunk knows something before the first task. Then 'frozen' trains heads only from the
            start; a trunk from scratch learns the first task whole, whatever the method.
    """

    def __init__(self, trunk: nn.Module, features: int, *, pretrained: bool = False) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ModuleDict()
        self.features = features
        self.pretrained = pretrained
        self._frozen = False

    def grow(self, task: str, classes: int) -> None:
        """Add the head of `task`, on the trunk's device and in its dtype, drawn from torch's global generator.

        Raises:
            ForgetlessError: the task has a head already, or fewer than one class.
        """
        if classes < 1:
            raise ForgetlessError(f"the head of task {task!r} needs at least one class, not {classes}.")
        if self.has(task):
            raise ForgetlessError(f"task {task!r} has a head already.")
        like = next(self.trunk.parameters(), torch.empty(0))
        head = nn.Linear(self.features, classes, device=like.device, dtype=like.dtype)
        self.heads[_key(task)] = head

    def has(self, task: str) -> bool:
        """Whether `task` has a head."""
        return _key(task) in self.heads

    def head(self, task: str) -> nn.Linear:
        """The head of `task`.

        Raises:
            ForgetlessError: the task has none.
        """
        if not self.has(task):
            known = ", ".join(self.heads) or "none"
            raise ForgetlessError(f"task {task!r} has no head; there are heads for {known}.")
        head = self.heads[_key(task)]
        assert isinstance(head, nn.Linear)
        return head

    def forward(self, inputs: Tensor, task: str) -> Tensor:
        """Logits `[N, classes]` of the inputs `[N, …]` under the head of `task`."""
        logits: Tensor = self.head(task)(self.trunk(inputs))
        return logits

    def freeze(self, frozen: bool = True) -> None:
        """Freeze the trunk, or let it learn again: its parameters take no gradient and it stays in eval mode."""
        self._frozen = frozen
        self.trunk.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> MultiHead:
        """Set training mode, except for a frozen trunk: what it computes must not change."""
        super().train(mode)
        if self._frozen:
            self.trunk.eval()
        return self


def _key(task: str) -> str:
    """The task's name as a key `nn.ModuleDict` accepts: no dots, not empty, none of its own attributes' names."""
    key = quote(task, safe=" ").replace(".", "%2E")
    return f"{key}%" if not key or hasattr(nn.ModuleDict(), key) else key
