"""`AccumulationWatch`: notices a penalty whose gradients add up over the batches of one optimizer step.

`penalty()` is a term of a loss. Under gradient accumulation it is in every one of k losses, and unless these are
divided by k the optimizer's step sees it k times. A hook on the penalty adds up the weight with which it is
differentiated; when the gradients have been cleared, the sum is judged.
"""

from __future__ import annotations

import warnings
import weakref

import torch
from torch import Tensor, nn

from forgetless.model.sharding import local

_MOST = 1.01  # what the weights of one step may add up to; rounding of 3 · ⅓ stays below
_WATCHED = 256  # differentiations, after which nothing is looked at any more


class AccumulationWatch:
    """Warns, once, if a penalty is in several losses of one step at more than its weight altogether.

    Weights above 1 are loss scaling's (GradScaler), behind which accumulation cannot be seen.
    """

    def __init__(self) -> None:
        self._weights: list[float] = []  # of this step's differentiations so far
        self._seen, self._said = 0, False

    def watch(self, penalty: Tensor, parameter: nn.Parameter) -> None:
        """Look on when `penalty`, in which the parameter has a part, is differentiated."""
        if self._said or self._seen >= _WATCHED or not penalty.requires_grad or torch.compiler.is_compiling():
            return
        present = weakref.ref(parameter)

        def differentiated(weight: Tensor) -> None:
            held = present()
            if held is not None and (held.grad is None or held.grad.layout == torch.strided):
                self._add(float(weight), held)

        penalty.register_hook(differentiated)  # type: ignore[no-untyped-call]

    def _add(self, weight: float, parameter: nn.Parameter) -> None:
        self._seen += 1
        earlier = parameter.grad
        if earlier is None or not bool(local(earlier).any()):  # cleared since the last time
            self._judge()
            self._weights = []
        self._weights.append(weight)

    def _judge(self) -> None:
        if len(self._weights) < 2 or max(self._weights) > 1 or sum(self._weights) <= _MOST:
            return
        self._said = True
        warnings.warn(
            f"penalty() was added to {len(self._weights)} losses whose gradients added up in one step, and acted "
            f"{sum(self._weights):.3g} times as strongly as its strength says; divide every loss, with the penalty, by "
            "their number, or attach() the anchor to the optimizer instead, where it makes no difference.",
            stacklevel=2,
        )
