"""The pull: after every step of an optimiser, its anchored weights go part of the way back, in closed form.

    θ ← (θ + s θ*) / (1 + s)

is finite for every strength and learning rate; `forgetless.attachments.forms` has the s of each optimiser. It neither reads nor
writes gradients, so accumulation, loss scaling and the number of processes make no difference.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from forgetless.attachments.attachment import Attachment, Holds
from forgetless.errors import ForgetlessError
from forgetless.attachments.forms import Group, decoupled, form_of, sgd
from forgetless.hold import Hold, Index

_LARGEST = 1e20  # of 2 λ r: it holds a weight to the last bit, and Ω times it is still finite in float32
_EARLY = 10  # steps after which the share held is logged,
_MUCH = 0.9  # and warned of if it is more than this
_log = logging.getLogger("forgetless")


class Pull(Attachment):
    """Moves the anchored parameters of one optimiser after each of its steps."""

    def __init__(self, optimizer: Optimizer, holds: Holds, strength: float) -> None:
        """Hook into `optimizer`.

        Raises:
            ForgetlessError: an optimiser that no pull can follow, or settings that allow none.
        """
        self._form = form_of(optimizer)
        self._steps = 0
        name = type(optimizer).__name__
        for group in optimizer.param_groups:
            if not isinstance(group.get("lr"), float | int | Tensor):
                raise ForgetlessError(
                    f"{name} keeps no learning rate in its groups to measure a pull by; "
                    "attach(optimizer, how='gradient') needs none."
                )
            if group.get("momentum", 0) >= 1:
                raise ForgetlessError(
                    f"a momentum of {group['momentum']} never forgets a gradient, so no pull can balance it; "
                    "use one below 1."
                )
            if group.get("differentiable", False):
                raise ForgetlessError(
                    "the pull cannot be differentiated through, as differentiable=True asks; "
                    "add anchor.penalty() to the loss instead."
                )
        super().__init__(optimizer, holds, strength)

    def _hook(self) -> RemovableHandle:
        return self.optimizer.register_step_post_hook(self)

    def caution(self) -> str | None:
        """That the form is not the optimiser's own, if it is not."""
        if self._form is not decoupled:
            return None
        name = type(self.optimizer).__name__
        return (
            f"how {name} scales gradients is not known here, so the pull is s = 2·lr·strength·Ω: "
            "it holds the weights at every strength, but its balance with the gradients is not the optimum of the "
            "penalised loss; attach(optimizer, how='gradient') seeks that, and may diverge."
        )

    @torch.no_grad()
    def __call__(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Move every anchored parameter of the optimiser, which calls this when its step is done."""
        # Under GradScaler a fused optimiser runs its step and skips inside it; nothing may move then.
        skipped = getattr(optimizer, "found_inf", None)
        for parameter, hold, group in self.owned():
            for part, share in self._shares(parameter, hold, group):
                weights, target = parameter[part], hold.weights[part]
                if skipped is not None:
                    share.mul_(1 - skipped.to(share.device))
                if weights.dtype == target.dtype:
                    weights.lerp_(target, share)
                else:
                    weights.copy_(weights.to(target.dtype).lerp_(target, share))
        self._steps += 1
        if self._steps == _EARLY:
            self._report()

    @torch.no_grad()
    def held(self) -> dict[str, tuple[int, int]]:
        """Per anchored parameter, how many of its weights have s > 1 now, and how many there are.

        A parameter that the optimiser has not stepped yet counts as free.
        """
        counts = {}
        for parameter, hold, group in self.owned():
            stopped = sum(int((share > 0.5).sum()) for _, share in self._shares(parameter, hold, group))
            counts[hold.name] = (stopped, parameter.numel())
        return counts

    def _shares(self, parameter: nn.Parameter, hold: Hold, group: Group) -> Iterator[tuple[Index, Tensor]]:
        """`s / (1 + s)`, the part of the way back that a weight goes, piece by piece."""
        state = self.optimizer.state.get(parameter, {})
        if not state and self._form not in (sgd, decoupled):
            return  # never stepped: it has not moved, and there is no D yet
        for part in hold.pieces(parameter):
            sliced = {
                key: value[part] if isinstance(value, Tensor) and value.shape == parameter.shape else value
                for key, value in state.items()
            }
            rate, denominator = self._form(group, sliced)
            rate = 2 * self.strength * rate
            if not isinstance(rate, Tensor):
                rate = min(rate, _LARGEST)
            share = hold.importance[part].to(hold.weights.dtype, copy=True).mul_(rate)
            yield part, share.div_(share + (1 if denominator is None else denominator))

    def _report(self) -> None:
        counts = self.held().values()
        share = sum(stopped for stopped, _ in counts) / max(1, sum(size for _, size in counts))
        _log.info("after %d steps the pull holds %.0f %% of the anchored weights", self._steps, 100 * share)
        if share > _MUCH:
            warnings.warn(
                f"the pull holds {100 * share:.0f} % of the anchored weights (s > 1): at strength "
                f"{self.strength:g} they can hardly learn anything; anchor.held() shows the layers.",
                stacklevel=2,
            )
