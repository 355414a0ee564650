"""`ScaledRates`: every weight has a learning rate of its own, the smaller the more it matters."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from forgetless.errors import ForgetlessError
from forgetless.measure.importance import Importance, refuse_mismatch
from forgetless.model.parameters import listing, named, unwrapped
from forgetless.model.sharding import is_sharded
from forgetless.protect.frozen.elementwise import is_elementwise
from forgetless.protect.optimizers.inner import Inner
from forgetless.protect.optimizers.response import step_of

# Rprop's steps do not depend on the rate, and ASGD averages the weights inside of its step.
_OTHERS = (torch.optim.Rprop, torch.optim.ASGD)


class ScaledRates:
    """Scales each weight's learning rate by `g = 1 / (1 + κ Ω / mean Ω)`, the mean over all elements of Ω.

        forgetless.ScaledRates(model, importance, kappa=10).attach(optimizer)

    After the optimizer's step `θ ← θ' + g (θ − θ')`, with θ' from before it. Where a step is proportional to the
    learning rate, that is training at the rate `g · lr`, exactly: so with SGD, its momentum included, and with Adam and
    its relatives, AdamW's decay included. It protects less than it seems with time: a rate slows a weight down and has
    no end of its own, where an anchor's pull has one (θ*) and a frozen core does not move.

    Memory: g, 4 bytes a weight in float32, and θ' during a step.
    """

    def __init__(self, model: nn.Module, importance: Importance, kappa: float = 1.0) -> None:
        """Nothing changes before `attach`.

        Args:
            model: the network.
            importance: Ω; parameters without one keep their rate.
            kappa: κ ≥ 0; 0 changes nothing.

        Raises:
            ForgetlessError: an importance of another model or 0 everywhere, sharded weights, or κ out of range.
        """
        if not (isinstance(kappa, int | float) and math.isfinite(kappa) and kappa >= 0):
            raise ForgetlessError(f"kappa must be a finite number of 0 or more, not {kappa!r}.")
        parameters = named(unwrapped(model))
        mine = {name: parameters[name] for name in importance.sums if name in parameters}
        refuse_mismatch(importance.sums, mine, "the importance", "the model")
        if split := [name for name, each in mine.items() if is_sharded(each)]:
            raise ForgetlessError(f"{listing(split)} are sharded over processes, which ScaledRates cannot follow.")
        total = math.fsum(float(sums.sum(dtype=torch.float64)) for sums in importance.sums.values())
        if not total:
            raise ForgetlessError("the importance is 0 everywhere, so that it has no scale.")
        mean = total / sum(sums.numel() for sums in importance.sums.values())
        self._gates = {mine[n]: (1 / (1 + kappa * s / mean)).to(mine[n]) for n, s in importance.sums.items()}
        self._before: dict[int, list[tuple[nn.Parameter, Tensor]]] = {}
        self._handles: list[Any] = []

    def gates(self) -> dict[nn.Parameter, Tensor]:
        """Parameter → g, of its shape."""
        return dict(self._gates)

    def attach(self, optimizer: Any) -> ScaledRates:
        """Scale the steps of `optimizer` from now on.

        Args:
            optimizer: trains parameters of the model; a wrapper stands for the optimizer inside, several come in a list
                or a dict.

        Returns:
            This object.

        Raises:
            ForgetlessError: attached already, none of the model's parameters, an optimizer that is not known to step in
                proportion to its rate, or one that a frozen core is attached to. Nothing is attached then.
        """
        if self._handles:
            raise ForgetlessError("attached already; remove() it first.")
        found = [each for each in Inner(optimizer).optimizers if self._owned(each)]
        if not found:
            raise ForgetlessError("the optimizer holds none of the parameters that have an importance.")
        for each in found:
            if any(getattr(hook, "packs", False) for hook in each._optimizer_step_pre_hooks.values()):
                raise ForgetlessError(
                    f"a frozen core is attached to this {type(each).__name__}, which puts others in its parameters' "
                    "place: attach ScaledRates before the core."
                )
            if not is_elementwise(each) or any(step_of(type(each)) is step_of(kind) for kind in _OTHERS):
                raise ForgetlessError(
                    f"{type(each).__name__} is not known to take steps in proportion to its learning rate, element by "
                    "element, so that a rate for every weight cannot be given to it; use SGD or one of Adam's kind."
                )
        for each in found:
            after = each.register_step_post_hook(self._scale)
            hooks: Any = each._optimizer_step_post_hooks
            hooks.move_to_end(after.id, last=False)  # an anchor pulls what has been scaled
            self._handles += [each.register_step_pre_hook(self._note), after]
        return self

    def remove(self) -> None:
        """Scale no more."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _owned(self, optimizer: Optimizer) -> list[nn.Parameter]:
        return [p for group in optimizer.param_groups for p in group["params"] if p in self._gates]

    def _note(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._before[id(optimizer)] = [(p, p.detach().clone()) for p in self._owned(optimizer) if p.requires_grad]

    @torch.no_grad()
    def _scale(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        for parameter, before in self._before.pop(id(optimizer), ()):
            if self._gates[parameter].device != parameter.device:
                self._gates[parameter] = self._gates[parameter].to(parameter.device)
            parameter.copy_(torch.lerp(before, parameter, self._gates[parameter]))
