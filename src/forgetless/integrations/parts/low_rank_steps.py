"""When a `DeltaAnchor` acts: in the steps of the optimizer that trains the adapters, once each.

Both ways come after clipping, and accumulation and loss scaling make no difference to them. `LowRankPull` moves the
adapters after a step and is finite at every strength (`low_rank_pull`). `LowRankGradient` adds the penalty's gradient
before a step. Its end is the optimum of the penalized loss with every optimizer; with SGD it diverges once
`lr · 2 λ s² A diag(Ω_o) Aᵀ` has an eigenvalue of 2 or more; adaptive optimizers take steps of bounded length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from forgetless.integrations.parts.low_rank import AdaptedWeight, matrix
from forgetless.integrations.parts.low_rank_pull import Step, pulled
from forgetless.protect.optimizers.response import Group, Known


class LowRankSteps:
    """A hook on an optimizer's steps; `LowRankPull` and `LowRankGradient` say what it does.

    Attributes:
        optimizer: the optimizer.
        weights: the base weights; their adapters are asked for anew in every step.
        strength: λ.
        steps: the optimizer's steps since it was attached.
        applied: those of them in which the anchor acted.
    """

    def __init__(self, optimizer: Optimizer, weights: Sequence[AdaptedWeight], strength: float) -> None:
        self.optimizer, self.weights, self.strength = optimizer, weights, strength
        self.steps = self.applied = 0
        self._handles = self._hooks()

    def _hooks(self) -> list[RemovableHandle]:
        raise NotImplementedError

    def remove(self) -> None:
        """Take the hooks out of the optimizer."""
        for handle in self._handles:
            handle.remove()

    def trained(self) -> dict[nn.Parameter, Group]:
        """What the optimizer trains, each with its group; made anew, for groups are added and replaced."""
        return {
            parameter: group
            for group in self.optimizer.param_groups
            for parameter in group["params"]
            if parameter.requires_grad
        }


class LowRankGradient(LowRankSteps):
    """Adds the penalty's gradient to those of the adapters before each step."""

    def _hooks(self) -> list[RemovableHandle]:
        return [self.optimizer.register_step_pre_hook(self._before)]

    def _before(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.steps += 1
        given = args[1:] or tuple(value for key, value in kwargs.items() if key == "closure")
        if not given or given[0] is None:
            self._add()
            return None

        def closure() -> Any:  # the gradients are computed inside the step
            with torch.enable_grad():
                loss = given[0]()
            self._add()
            return loss

        return (args[0], closure), {key: value for key, value in kwargs.items() if key != "closure"}

    @torch.no_grad()
    def _add(self) -> None:
        if not self.strength:
            return
        self.applied += 1
        trained = self.trained()
        scale = getattr(self.optimizer, "grad_scale", None)  # a fused step under GradScaler divides by it
        for weight in self.weights:
            with _exactly(weight):
                for parameter, gradient in weight.gradients(self.strength):
                    if parameter not in trained:
                        continue
                    if parameter.grad is None:
                        parameter.grad = torch.zeros_like(parameter)
                    sign = -1 if trained[parameter].get("maximize") else 1
                    parameter.grad.add_(gradient if scale is None else gradient * scale.to(gradient), alpha=sign)


class LowRankPull(LowRankSteps):
    """Moves B and then A of every adapter after each step."""

    def __init__(self, optimizer: Optimizer, known: Known, weights: Sequence[AdaptedWeight], strength: float) -> None:
        self._known = known
        self._starts: dict[nn.Parameter, Tensor] = {}
        super().__init__(optimizer, weights, strength)

    def _hooks(self) -> list[RemovableHandle]:
        return [self.optimizer.register_step_pre_hook(self._before), self.optimizer.register_step_post_hook(self._after)]

    @torch.no_grad()
    def _before(self, *_: Any) -> None:
        trained = self.trained()
        every = [side for weight in self.weights for each in weight.adapters() for side in (each.b, each.a)]
        self._starts = {side: side.detach().clone() for side in every if side in trained} if self.strength else {}

    @torch.no_grad()
    def _after(self, *_: Any) -> None:
        self.steps += 1
        skipped = getattr(self.optimizer, "found_inf", None)  # a fused step under GradScaler skips inside
        if self._starts and not (skipped is not None and bool(skipped)):
            self.applied += 1
            trained = self.trained()
            for weight in self.weights:
                with _exactly(weight):
                    self._move(weight, trained)
        self._starts = {}

    def _move(self, weight: AdaptedWeight, trained: Mapping[nn.Parameter, Group]) -> None:
        """B moves for the A of before the step, and A for the new B: then both rest at the optimum."""
        adapters, dtype = weight.adapters(), weight.dtype
        scales = [each.scale for each in adapters]
        b_steps = [self._step(each.b, trained, dtype) for each in adapters]
        a_steps = [self._step(each.a, trained, dtype, transposed=True) for each in adapters]
        if not adapters:
            return
        right = torch.cat([step.start for step in a_steps], 1).T

        p, q = weight.away(_side_by_side(scales, [step.start for step in b_steps]), right)
        b_new = pulled(weight.importance, p, q, b_steps, _scaled(scales, [step.start.T for step in a_steps]), self.strength)

        p, q = weight.away(_side_by_side(scales, b_new), right)
        a_new = pulled(weight.importance.T, q.T, p.T, a_steps, _scaled(scales, [b.T for b in b_new]), self.strength)

        for each, b, a in zip(adapters, b_new, a_new, strict=True):
            each.b.copy_(b.view(each.b.shape))
            each.a.copy_(a.T.reshape(each.a.shape))

    def _step(
        self, side: nn.Parameter, trained: Mapping[nn.Parameter, Group], dtype: torch.dtype, transposed: bool = False
    ) -> Step:
        """What the optimizer did to B, or to Aᵀ if `transposed`."""

        def tall(tensor: Tensor) -> Tensor:
            flat = matrix(tensor).to(dtype)
            return flat.T if transposed else flat

        now, state = tall(side), self.optimizer.state.get(side, {})
        if side not in self._starts or not (state or self._known.at_once):
            return Step(now, torch.zeros_like(now))
        start = tall(self._starts[side])
        response = self._known.form(trained[side], state, side)
        divisor = response.divisor()
        return Step.under(response, start, now - start, None if divisor is None else tall(divisor))


def _scaled(scales: Sequence[float], matrices: Sequence[Tensor]) -> list[Tensor]:
    return [scale * each for scale, each in zip(scales, matrices, strict=True)]


def _side_by_side(scales: Sequence[float], matrices: Sequence[Tensor]) -> Tensor:
    return torch.cat(_scaled(scales, matrices), 1)


def _exactly(weight: AdaptedWeight) -> torch.autocast:
    """Inside, products are not rounded to 16 bits, even where a step is taken under autocast."""
    return torch.autocast(weight.importance.device.type, enabled=False)
