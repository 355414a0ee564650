"""The pull: after every step of an optimizer, its anchored weights go part of the way back, in closed form.

    θ ← (θ + s θ*) / (1 + s),   s = r (2 λ Ω + w) / D

is finite for every strength λ, decay w towards θ* and learning rate; `forgetless.protect.optimizers.forms` has the r and D of
each optimizer. It neither reads nor writes gradients, so accumulation, loss scaling and the number of processes make no
difference. Training ends at the optimum of the penalized loss, `g + (2 λ Ω + w)(θ − θ*) = 0`: with SGD at any constant
rate, with the adaptive optimizers as their rate decays to 0 (at a constant one they stay 1e-4 to 1e-3 away, in the loss
form too). Decoupled weight decay and clipping move that end; `forms` says where to.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from forgetless.errors import ForgetlessError
from forgetless.protect.anchored_parameter import local
from forgetless.protect.optimizers import native
from forgetless.protect.optimizers.attachment import Attachment, Holds
from forgetless.protect.optimizers.forms import decoupled, form_of, sgd
from forgetless.protect.optimizers.move import Move

_EARLY = 1  # steps after which the share held is logged, and then at 10, 100, …: a warm-up raises it,
_MUCH = 0.9  # and warned of, once, if it is more than this
_log = logging.getLogger("forgetless")


class Pull(Attachment):
    """Moves the anchored parameters of one optimizer after each of its steps."""

    def __init__(self, optimizer: Optimizer, anchored_parameters: Holds, strength: float, l2sp: float = 0.0) -> None:
        """Hook into `optimizer`.

        Raises:
            ForgetlessError: an optimizer that no pull can follow, or settings that allow none.
        """
        self._form = form_of(optimizer)
        self._steps, self._report_at, self._warned = 0, _EARLY, False
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
        super().__init__(optimizer, anchored_parameters, strength, l2sp)

    def _hook(self) -> RemovableHandle:
        return self.optimizer.register_step_post_hook(self)

    def caution(self) -> str | None:
        """That the form is not the optimizer's own, if it is not."""
        if self._form is not decoupled:
            return None
        name = type(self.optimizer).__name__
        return (
            f"how {name} scales gradients is not known here, so the pull is s = 2·lr·strength·Ω: "
            "it holds the weights at every strength, but its balance with the gradients is not the optimum of the "
            "penalized loss; attach(optimizer, how='gradient') seeks that, and may diverge."
        )

    @torch.no_grad()
    def __call__(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Move every anchored parameter of the optimizer, which calls this when its step is done."""
        # Under GradScaler a fused optimizer runs its step and skips inside it; nothing may move then.
        skipped = getattr(optimizer, "found_inf", None)
        if skipped is not None and skipped.device.type == "cpu":
            if skipped.item():
                return
            skipped = None
        if self.strength or self.l2sp:
            moves = [move for _, _, move in self._moves() if move is not None]
            for move in moves if skipped is not None else native.pull(moves):
                move.apply(skipped)
        self._steps += 1
        if self._steps == self._report_at:
            self._report_at *= 10
            self._report()

    @torch.no_grad()
    def frozen(self) -> dict[str, tuple[int, int]]:
        """Per anchored parameter, how many of its weights have s > 1 now, and how many there are.

        A parameter that the optimizer has not stepped yet counts as free. Of sharded ones, this process's shards count.
        """
        counts = {}
        for name, size, move in self._moves():
            shares = [] if move is None else move.shares()
            counts[name] = (sum(int((share > 0.5).sum()) for _, share in shares), size)
        return counts

    def _moves(self) -> Iterator[tuple[str, int, Move | None]]:
        """Name, size and move of every anchored parameter; None for one that was never stepped: there is no D yet."""
        for parameter, anchored, group in self.owned():
            state = self.optimizer.state.get(parameter, {})
            move = None
            if state or self._form in (sgd, decoupled):
                response = self._form(group, state)
                others = [each for each in (response.second, response.mean) if each is not None]
                weights, target, importance, *others = anchored.meet(parameter.detach(), *others)
                if others:
                    response = response._replace(second=others[0], mean=others[1] if others[1:] else None)
                move = Move(weights, target, importance, self.strength, self.l2sp, response)
            yield anchored.name, local(parameter).numel(), move

    def _report(self) -> None:
        counts = self.frozen().values()
        share = sum(stopped for stopped, _ in counts) / max(1, sum(size for _, size in counts))
        _log.info("after %d steps the pull holds %.0f %% of the anchored weights", self._steps, 100 * share)
        if share > _MUCH and not self._warned:
            self._warned = True
            warnings.warn(
                f"the pull holds {100 * share:.0f} % of the anchored weights (s > 1): at strength "
                f"{self.strength:g} they can hardly learn anything; anchor.frozen_fraction() shows the layers.",
                stacklevel=2,
            )
