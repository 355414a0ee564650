"""What ties an anchor to an optimizer: a hook on its step, and the anchored parameters that it trains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from forgetless.protect.anchored_parameter import AnchoredParameter
from forgetless.protect.optimizers.response import Group

Anchored = Mapping[nn.Parameter, AnchoredParameter]


class Attachment:
    """A hook on one optimizer; `Pull` and `Gradient` say what it does.

    Attributes:
        optimizer: the optimizer.
        anchored: parameter → its θ* and Ω; parameters that are not in it are free.
        strength: λ.
        l2sp: w, towards θ*.
    """

    def __init__(self, optimizer: Optimizer, anchored: Anchored, strength: float, l2sp: float = 0.0) -> None:
        self.optimizer, self.anchored, self.strength, self.l2sp = optimizer, anchored, strength, l2sp
        self._handle = self._hook()

    def _hook(self) -> RemovableHandle:
        raise NotImplementedError

    def caution(self) -> str | None:
        """What the user must know before training goes on, if anything."""
        raise NotImplementedError

    def remove(self) -> None:
        """Take the hook out of the optimizer."""
        self._handle.remove()

    def shares(self, optimizer: Optimizer) -> bool:
        """Whether `optimizer` is the one hooked here, or trains an anchored parameter of that one too."""
        if optimizer is self.optimizer:
            return True
        ours = {parameter for parameter, _, _ in self.owned()}
        return any(parameter in ours for group in optimizer.param_groups for parameter in group["params"])

    def owned(self) -> Iterator[tuple[nn.Parameter, AnchoredParameter, Group]]:
        """The anchored parameters that the optimizer trains, each with its group.

        Looked up anew each time: groups are added, and replaced by `load_state_dict`.
        """
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                if parameter in self.anchored and parameter.requires_grad:
                    yield parameter, self.anchored[parameter], group
