"""The loss form without a term in the loss: `(2 λ Ω + w)(θ − θ*)` is added to the gradients before an optimizer's step.

It is the gradient of Eq. 3 (and of a decay w towards θ*), with every optimizer. Unlike `penalty()` it comes after
clipping, and accumulation and loss scaling make no difference to it. Unlike the pull it diverges where the optimizer's
step is too long for the strength: with SGD (heavy ball) from `2 λ Ω ≥ 2 (1+μ) / (η (1−dampening))` on, with Nesterov's
momentum from `2 λ Ω ≥ 2 (1+μ) / (η (1+2μ))` on. The adaptive optimizers have no such bound.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from forgetless.errors import ForgetlessError
from forgetless.protect.anchored_parameter import computed, pieces
from forgetless.protect.coded import largest, read
from forgetless.protect.optimizers.attachment import Anchored, Attachment
from forgetless.protect.optimizers.before_step import Call, before_step
from forgetless.protect.optimizers.families.torch_optim import sgd, sparse_adam
from forgetless.protect.optimizers.forms import decoupled, known
from forgetless.protect.optimizers.response import Group


class Gradient(Attachment):
    """Adds the penalty's gradient to those of one optimizer's anchored parameters, before each of its steps."""

    def __init__(self, optimizer: Optimizer, anchored: Anchored, strength: float, l2sp: float = 0.0) -> None:
        """Hook into `optimizer`.

        Raises:
            ForgetlessError: an optimizer that evaluates the loss more than once in a step, or one that takes sparse
                gradients only.
        """
        found = known(optimizer)
        self._form = None if isinstance(found, str) else found.form
        if self._form is sparse_adam:
            raise ForgetlessError(
                "SparseAdam takes sparse gradients only and the penalty's is dense: "
                "attach(optimizer, how='pull') instead."
            )
        super().__init__(optimizer, found, anchored, strength, l2sp)

    def _hook(self) -> RemovableHandle:
        return self.optimizer.register_step_pre_hook(self)

    def caution(self) -> str | None:
        """That SGD must diverge, if it must, and that an unknown optimizer may.

        The adaptive optimizers divide by the gradient and have no such bound.
        """
        if self._form is decoupled:
            return (
                f"how {type(self.optimizer).__name__} scales gradients is not known here, so the penalty is added to "
                "them (how='gradient'), which may diverge at a large strength; how='pull' cannot, but its balance with "
                "the gradients is not the optimum of the penalized loss."
            )
        if self._form is not sgd or not self.strength:
            return None
        bounds = [
            max(0.0, stable_up_to(group) - group["weight_decay"] - self.l2sp) / (2 * most)
            for _, anchored, group in self.owned()
            if (most := largest(anchored.here()))
        ]
        if not bounds or self.strength < min(bounds):
            return None
        return (
            f"with how='gradient' training will diverge: at this learning rate and momentum SGD is stable up to a "
            f"strength of {min(bounds):.3g}, and this is {self.strength:g}; how='pull' is stable at every strength."
        )

    def __call__(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        """Add the penalty's gradient; called by the optimizer before its step."""
        self.steps += 1
        self.rates.note()
        if (self.strength or self.l2sp) and self.anchored:
            self._acted()
        return before_step(self._add, args, kwargs)

    @torch.no_grad()
    def _add(self) -> None:
        # A fused optimizer under GradScaler divides by the scale inside its step.
        scale = getattr(self.optimizer, "grad_scale", None)
        for parameter, anchored, group in self.owned():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            elif parameter.grad.is_sparse:
                parameter.grad = parameter.grad.to_dense()
            sign = -1 if group.get("maximize") else 1
            weights, target, importance, *met = anchored.meet(parameter.detach(), parameter.grad)
            for part in pieces(tuple(weights.shape), weights.device):
                moved = weights[part] - read(target[part], computed(weights, target))
                factor = read(importance[part], moved.dtype).mul(2 * self.strength).add_(self.l2sp)
                moved.mul_(factor).mul_(sign if scale is None else sign * scale.to(moved))
                met[0][part].add_(moved)


def stable_up_to(group: Group) -> float:
    """The largest curvature h at which SGD's explicit step on ½ h θ² does not diverge.

    Heavy ball: `h < 2 (1+μ) / (η (1−dampening))`. Nesterov: `h < 2 (1+μ) / (η (1+2μ))`. η is the largest learning rate
    that a scheduler has noted in the group.
    """
    rate = max(float(group.get(key, 0.0)) for key in ("lr", "initial_lr", "max_lr"))
    momentum = group["momentum"]
    slowed = 1 + 2 * momentum if group["nesterov"] else (1 - group["dampening"] if momentum else 1.0)
    return float(2 * (1 + momentum) / max(rate * slowed, 1e-300))
