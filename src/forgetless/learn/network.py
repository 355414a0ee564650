"""`Network`: what learning a stream of tasks needs of a network. Methods and objectives use this and nothing else."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class OldOutputs(NamedTuple):
    """Outputs that earlier tasks use, all of one head.

    Attributes:
        task: one of these tasks; `Network.head(task)` gives the outputs.
        width: how many of the head's outputs are meant, the first ones.
        tasks: how many earlier tasks use them.
    """

    task: str
    width: int
    tasks: int


class Network(nn.Module):
    """A backbone and one or more heads: `F(x) = head(task)(backbone(x))`.

    Abstract. `forgetless.learn.heads` has a network with a classification head per task and one with a single head; a
    subclass of your own defines `grow` and `head`, and overrides the rest where its heads differ. It is a class and not
    a `Protocol` because everything here also needs an `nn.Module`.

    Args:
        backbone: any module from inputs `[N, …]` to features `[N, …, features]`.
        pretrained: whether the backbone is trained before the first task. If not, every method learns the first task
            without protection.
    """

    def __init__(self, backbone: nn.Module, *, pretrained: bool = False) -> None:
        super().__init__()
        self.backbone = backbone
        self.pretrained = pretrained
        self._frozen = False

    def grow(self, task: str, outputs: int) -> bool:
        """Make room for the outputs of `task`.

        Args:
            task: the task's name.
            outputs: how many outputs it has.

        Returns:
            Whether the task got a head that no earlier task has used.

        Raises:
            ForgetlessError: the task has a head already, or the number of outputs does not fit.
        """
        raise NotImplementedError

    def head(self, task: str) -> nn.Module:
        """The module from features to the outputs of `task`.

        Raises:
            ForgetlessError: there is none.
        """
        raise NotImplementedError

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the tasks that it has made room for, in order."""
        raise NotImplementedError

    def forward(self, inputs: Any, task: str) -> Tensor:
        """The outputs `[N, …]` for `task` of the inputs: a tensor `[N, …]`, or a dict of them."""
        outputs: Tensor = self.head(task)(self.backbone(inputs))
        return outputs

    @property
    def is_trained(self) -> bool:
        """Whether the backbone is trained: it is pretrained, or past its first task."""
        return self.pretrained or len(self.tasks) > 1

    @property
    def unshared(self) -> tuple[str, ...]:
        """Names of the parts that belong to a single task, for `exclude=`; everything else is protected."""
        return ()

    def first(self, task: str) -> int:
        """The number of the first of the head's outputs that belongs to `task`."""
        return 0

    def width(self, task: str) -> int:
        """How many outputs the head of `task` has."""
        return int(self.head(task).out_features)  # type: ignore[arg-type]

    def can_answer(self, task: str) -> bool:
        """Whether it has outputs for `task`, also before the task is learned."""
        return task in self.tasks

    def outputs_before(self, task: str) -> list[OldOutputs]:
        """The outputs that the tasks before `task` use, in order."""
        earlier = self.tasks[: self.tasks.index(task)]
        return [OldOutputs(earlier[0], self.width(task), len(earlier))] if earlier else []

    def new_rows(self, task: str) -> dict[str, int]:
        """Parameters that got rows for `task`: name → the first new row."""
        return {}

    def settings(self) -> dict[str, str | int | float | bool | None]:
        """What defines it beside its weights, for checkpoints."""
        return {}

    def freeze(self, frozen: bool = True) -> None:
        """Freeze the backbone (no gradients, eval mode whatever `train` says), or let it learn again."""
        self._frozen = frozen
        self.backbone.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> Network:
        """Set training mode, except for a frozen backbone: what it computes must not change."""
        super().train(mode)
        if self._frozen:
            self.backbone.eval()
        return self


def nonfinite(model: nn.Module) -> str | None:
    """The first parameter that holds NaN or Inf; None where all are finite."""
    held = model.named_parameters()
    return next((name for name, parameter in held if not bool(torch.isfinite(parameter).all())), None)
