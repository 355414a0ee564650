"""The pull: after every step of an optimizer, its anchored weights go part of the way back, in closed form.

    θ ← (θ + s θ*) / (1 + s),   s = r (2 λ Ω + w) / D

is finite for every strength λ, decay w towards θ* and learning rate; `forgetless.protect.optimizers.forms` has the r
and D of each optimizer. It neither reads nor writes gradients, so accumulation, loss scaling and the number of
processes make no difference. Training ends at the optimum of the penalized loss, `g + (2 λ Ω + w)(θ − θ*) = 0`: with
SGD at any constant rate, with the adaptive optimizers as their rate decays to 0 (at a constant one they stay 1e-4 to
1e-3 away, in the loss form too). Decoupled weight decay and clipping move that end; `forms` says where to.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from forgetless.errors import ForgetlessError
from forgetless.model.sharding import local
from forgetless.protect.optimizers import native
from forgetless.protect.optimizers.attachment import Anchored, Attachment
from forgetless.protect.optimizers.forms import known
from forgetless.protect.optimizers.move import Move
from forgetless.protect.optimizers.response import Known

_EARLY = 1  # steps after which the share that is stopped is logged, and then at 10, 100, …: a warm-up raises it,
_MUCH = 0.9  # and warned of, once, if it is more than this
_log = logging.getLogger("forgetless")


class Pull(Attachment):
    """Moves the anchored parameters of one optimizer after each of its steps."""

    def __init__(self, optimizer: Optimizer, anchored: Anchored, strength: float, l2sp: float = 0.0) -> None:
        """Hook into `optimizer`.

        Raises:
            ForgetlessError: an optimizer that no pull can follow, or settings that allow none.
        """
        known = _fitting(optimizer)
        self._caution = known.caution or None
        self._report_at, self._warned = _EARLY, False
        super().__init__(optimizer, known, anchored, strength, l2sp)

    def _hook(self) -> RemovableHandle:
        return self.optimizer.register_step_post_hook(self)

    def caution(self) -> str | None:
        """That the form is not the optimizer's own, if it is not."""
        return self._caution

    @torch.no_grad()
    def __call__(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Move every anchored parameter of the optimizer, which calls this when its step is done."""
        self.steps += 1
        self.rates.note()
        # Under GradScaler a fused optimizer runs its step and skips inside it; nothing may move then.
        skipped = getattr(optimizer, "found_inf", None)
        if skipped is not None and skipped.device.type == "cpu":
            if skipped.item():
                return
            skipped = None
        if self.strength or self.l2sp:
            self._act(skipped)
        if self.steps >= self._report_at and not _captured():
            self._report_at *= 10
            self._report()

    def _act(self, skipped: Tensor | None) -> None:
        moved = list(self.moves(self.strength, self.l2sp))
        every = [move for _, _, move in moved if move is not None]
        following = [
            (anchored.meet(parameter.detach())[0], move, move.weights.clone())
            for parameter, anchored, move in moved
            if move is not None and move.response.moved is not None
        ]
        for move in every if skipped is not None else native.pull(every):
            move.apply(skipped)
        for theta, move, before in following:
            follow(theta, move, before)
        if every:
            self._acted()

    @torch.no_grad()
    def frozen(self, steps: float = 1.0) -> dict[str, tuple[int, int]]:
        """Per anchored parameter, how many of its weights have s > 1/steps at the peak rate, and how many there are.

        A parameter that the optimizer has not stepped yet counts as free. Of sharded ones, this process's shards count.
        """
        counts, least = {}, 1 / (1 + steps)  # of s / (1 + s)
        for parameter, anchored, move in self.moves(self.strength, self.l2sp, peak=True):
            shares = [] if move is None else move.shares()
            counts[anchored.name] = sum(int((share > least).sum()) for _, share in shares), local(parameter).numel()
        return counts

    def _report(self) -> None:
        counts = self.frozen().values()
        share = sum(stopped for stopped, _ in counts) / max(1, sum(size for _, size in counts))
        _log.info("after %d steps the pull stops %.0f %% of the anchored weights", self.steps, 100 * share)
        if share > _MUCH and not self._warned:
            self._warned = True
            warnings.warn(
                f"the pull stops {100 * share:.0f} % of the anchored weights (s > 1): at strength "
                f"{self.strength:g} they can hardly learn anything; anchor.frozen_fraction() shows the layers.",
                stacklevel=2,
            )


def follow(parameter: Tensor, move: Move, before: Tensor) -> None:
    """Let a parameter make its part of the move of the tensor that was pulled in its place, as it was `before`."""
    change = (move.weights - before).to(parameter.dtype)
    parameter.add_(change.mul_(move.response.follow))


def _fitting(optimizer: Optimizer) -> Known:
    """The optimizer's form.

    Raises:
        ForgetlessError: an optimizer that no pull can follow, or settings that allow none.
    """
    name, found = type(optimizer).__name__, known(optimizer)
    if isinstance(found, str):
        raise ForgetlessError(found)
    for group in optimizer.param_groups:
        rated = isinstance(group.get("lr"), float | int | Tensor) or group.get("relative_step")
        if not rated:
            raise ForgetlessError(
                f"{name} keeps no learning rate in its groups to measure a pull by; "
                "attach(optimizer, how='gradient') needs none."
            )
        momentum = group.get("momentum", 0)
        if isinstance(momentum, float | int) and momentum >= 1:
            raise ForgetlessError(
                f"a momentum of {momentum} never forgets a gradient, so no pull can balance it; use one below 1."
            )
        if group.get("differentiable", False):
            raise ForgetlessError(
                "the pull cannot be differentiated through, as differentiable=True asks; "
                "add anchor.penalty() to the loss instead."
            )
    return found


def _captured() -> bool:
    """Whether a CUDA graph is being captured: then nothing may be asked of the device."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
