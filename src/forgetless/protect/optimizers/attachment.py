"""What ties an anchor to an optimiser: a hook on its step, and the parameters that both of them hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from forgetless.protect.anchored_parameter import Hold
from forgetless.protect.optimizers.forms import Group

Holds = Mapping[nn.Parameter, Hold]


class Attachment:
    """A hook on one optimiser; `Pull` and `Gradient` say what it does.

    Attributes:
        optimizer: the optimiser.
        holds: parameter → its anchor; parameters that are not in it move freely.
        strength: λ.
        decay: w, towards θ*.
    """

    def __init__(self, optimizer: Optimizer, holds: Holds, strength: float, decay: float = 0.0) -> None:
        self.optimizer, self.holds, self.strength, self.decay = optimizer, holds, strength, decay
        self._handle = self._hook()

    def _hook(self) -> RemovableHandle:
        raise NotImplementedError

    def caution(self) -> str | None:
        """What the user must know before training goes on, if anything."""
        raise NotImplementedError

    def remove(self) -> None:
        """Take the hook out of the optimiser."""
        self._handle.remove()

    def shares(self, optimizer: Optimizer) -> bool:
        """Whether `optimizer` is the one hooked here, or holds an anchored parameter of that one too."""
        if optimizer is self.optimizer:
            return True
        ours = {parameter for parameter, _, _ in self.owned()}
        return any(parameter in ours for group in optimizer.param_groups for parameter in group["params"])

    def owned(self) -> Iterator[tuple[nn.Parameter, Hold, Group]]:
        """The anchored parameters that the optimiser trains, each with its group.

        Looked up anew each time: groups are added, and replaced by `load_state_dict`.
        """
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                if parameter in self.holds and parameter.requires_grad:
                    yield parameter, self.holds[parameter], group
