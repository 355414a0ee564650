"""When a `DeltaAnchor` acts: in the steps of the optimizer that trains the adapters, once each.

Both ways come after clipping, and accumulation and loss scaling make no difference to them. `LowRankPull` moves the
adapters after a step and is finite at every strength (`low_rank_pull`). `LowRankGradient` adds the penalty's gradient
before a step. Its end is the optimum of the penalized loss with every optimizer; with SGD it diverges once
`lr · 2 λ s² A diag(Ω_o) Aᵀ` has an eigenvalue of 2 or more; adaptive optimizers take steps of bounded length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from forgetless.errors import ForgetlessError
from forgetless.integrations.parts.adapted_layer import dtype_of, matrix
from forgetless.integrations.parts.low_rank import AdaptedWeight
from forgetless.integrations.parts.low_rank_pull import Step, pulled
from forgetless.model.parameters import listing
from forgetless.protect.anchored_parameter import pieces
from forgetless.protect.optimizers.before_step import before_step
from forgetless.protect.optimizers.families import torch_optim
from forgetless.protect.optimizers.families.torch_optim import sgd
from forgetless.protect.optimizers.forms import known
from forgetless.protect.optimizers.inner import Inner
from forgetless.protect.optimizers.rates import PeakRates
from forgetless.protect.optimizers.response import Group, Known, is_settled


@dataclass(frozen=True)
class Side:
    """An adapter's A, B or m, for the watch over weights that move elsewhere.

    Attributes:
        name: its name in the model.
    """

    name: str


class LowRankSteps:
    """A hook on an optimizer's steps; `LowRankPull` and `LowRankGradient` say what it does.

    Attributes:
        optimizer: the optimizer.
        weights: the base weights; their adapters are asked for anew in every step.
        strength: λ.
        steps: the optimizer's steps since it was attached.
        applied: those of them in which the anchor acted.
        known: the optimizer's form, if it is one of torch's own.
        rates: the largest learning rates so far.
    """

    def __init__(self, optimizer: Optimizer, weights: Sequence[AdaptedWeight], strength: float) -> None:
        self.optimizer, self.weights, self.strength = optimizer, weights, strength
        self.steps = self.applied = 0
        self.known, self.rates = torch_optim.known(optimizer), PeakRates(optimizer)
        self._handles = self._hooks()

    def _hooks(self) -> list[RemovableHandle]:
        raise NotImplementedError

    def caution(self) -> str | None:
        """What the user must know before training goes on, if anything."""
        return None

    def remove(self) -> None:
        """Take the hooks out of the optimizer."""
        for handle in self._handles:
            handle.remove()

    @property
    def anchored(self) -> dict[nn.Parameter, Side]:
        """Every A, B and m, with its name in the model."""
        return {
            side: Side(f"{weight.name.removesuffix('.weight')}.lora_{letter}")
            for weight in self.weights
            for each in weight.adapters()
            for letter, side in (("A", each.a), ("B", each.b), ("magnitude_vector", each.magnitude))
            if side is not None
        }

    def owned(self) -> Iterator[tuple[nn.Parameter, Side, Group]]:
        """Those of them that the optimizer trains, each with its group."""
        trained = self.trained()
        for side, named in self.anchored.items():
            if side in trained:
                yield side, named, trained[side]

    @torch.no_grad()
    def gains(self) -> Tensor | None:
        """`2 s² (Σ_i Ω A²) r / D` for every entry of B at the peak rate: how strongly λ = 1 pulls it, by itself.

        Of embeddings those of A, which is what starts at 0 there. None where the optimizer has not stepped, or its form
        is not known.
        """
        trained, peak, found = self.trained(), self.rates.groups(), []
        for weight in self.weights:
            swapped = bool(weight.layer.lora_embedding_A)
            importance = weight.importance.T if swapped else weight.importance
            for each in weight.adapters():
                side, other = (each.a, matrix(each.b).T) if swapped else (each.b, matrix(each.a))
                state = self.optimizer.state.get(side, {})
                if not isinstance(self.known, Known) or side not in trained or not is_settled(self.known, state):
                    continue
                response = self.known.form(peak[id(trained[side])], state, side)
                divisor = response.divisor()
                design = (each.scale * other).square().T.to(dtype_of(weight.layer))
                rows = [importance[part].to(design) @ design for part in pieces(tuple(importance.shape), design.device)]
                gain = torch.cat(rows) * (2 * response.rate)
                if divisor is not None:
                    flat = matrix(divisor)
                    gain /= (flat.T if swapped else flat).to(gain).clamp(min=torch.finfo(gain.dtype).tiny)
                found.append(gain.flatten().cpu())
        return torch.cat(found) if found else None

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

    def caution(self) -> str | None:
        """That SGD diverges at a large strength; the adaptive optimizers divide by the gradient."""
        found = known(self.optimizer)
        if isinstance(found, str) or found.form is not sgd or not self.strength:
            return None
        return (
            "with how='gradient' SGD diverges at a large strength, and earlier the larger the adapters are; how='pull' "
            "is finite at every strength."
        )

    def _before(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.steps += 1
        self.rates.note()
        return before_step(self._add, args, kwargs)

    @torch.no_grad()
    def _add(self) -> None:
        if not self.strength:
            return
        skipped = getattr(self.optimizer, "found_inf", None)
        self.applied += skipped is None or not bool(skipped)
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


def against_pull(optimizer: Optimizer, weights: Sequence[AdaptedWeight]) -> str:
    """Why no pull fits this optimizer or these adapters; "" if one does."""
    adapters = [(weight.name, each) for weight in weights for each in weight.adapters()]
    if scaled := [name for name, each in adapters if each.magnitude is not None]:
        return f"DoRA scales the rows of {listing(scaled)}, in which the penalty is not quadratic in A or B"
    narrow = [name for name, each in adapters if {each.a.dtype, each.b.dtype} & {torch.float16, torch.bfloat16}]
    if narrow:
        return f"the adapters of {listing(narrow)} are in 16 bits, where small pulls are lost in rounding"
    found = torch_optim.known(optimizer)
    if not isinstance(found, Known):
        return f"how far {type(optimizer).__name__} moves A and B together under a gradient is not known"
    return ""


class LowRankPull(LowRankSteps):
    """Moves B and then A of every adapter after each step."""

    def __init__(self, optimizer: Optimizer, weights: Sequence[AdaptedWeight], strength: float) -> None:
        """Hook into `optimizer`.

        Raises:
            ForgetlessError: a pull cannot follow it, or these adapters.
        """
        if against := against_pull(optimizer, weights):
            raise ForgetlessError(f"{against}: attach(optimizer, how='gradient') instead.")
        self._starts: dict[nn.Parameter, Tensor] = {}
        super().__init__(optimizer, weights, strength)

    def _hooks(self) -> list[RemovableHandle]:
        return [
            self.optimizer.register_step_pre_hook(self._before),
            self.optimizer.register_step_post_hook(self._after),
        ]

    @torch.no_grad()
    def _before(self, *_: Any) -> None:
        trained = self.trained()
        every = [side for weight in self.weights for each in weight.adapters() for side in (each.b, each.a)]
        self._starts = {side: side.detach().clone() for side in every if side in trained} if self.strength else {}

    @torch.no_grad()
    def _after(self, *_: Any) -> None:
        self.steps += 1
        self.rates.note()
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
        adapters, dtype = weight.adapters(), dtype_of(weight.layer)
        scales = [each.scale for each in adapters]
        b_steps = [self._step(each.b, trained, dtype) for each in adapters]
        a_steps = [self._step(each.a, trained, dtype, transposed=True) for each in adapters]
        if not adapters:
            return
        right = torch.cat([step.start for step in a_steps], 1).T

        p, q = weight.away(_side_by_side(scales, [step.start for step in b_steps]), right)
        b_new = pulled(
            weight.importance, p, q, b_steps, _scaled(scales, [step.start.T for step in a_steps]), self.strength
        )

        p, q = weight.away(_side_by_side(scales, b_new), right)
        designs = _scaled(scales, [b.T for b in b_new])
        a_new = pulled(weight.importance, p, q, a_steps, designs, self.strength, columns=True)

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
        if side not in self._starts or not isinstance(self.known, Known) or not is_settled(self.known, state):
            return Step(now, torch.zeros_like(now))
        start = tall(self._starts[side])
        response = self.known.form(trained[side], state, side)
        divisor = response.divisor()
        return Step.under(response, start, now - start, None if divisor is None else tall(divisor))


def holder(optimizer: Any, weights: Sequence[AdaptedWeight]) -> Optimizer:
    """The optimizer that trains the adapters, inside of what the user calls an optimizer.

    Raises:
        ForgetlessError: none of them does, several do, or it cannot be followed (LBFGS, LOMO, …).
    """
    sides = {side for weight in weights for each in weight.adapters() for side in (each.a, each.b)}
    found = [
        each
        for each in Inner(optimizer).optimizers
        if any(parameter in sides for group in each.param_groups for parameter in group["params"])
    ]
    if not found:
        raise ForgetlessError(
            f"the optimizer holds none of the active adapters of {listing(weight.name for weight in weights)}; make it "
            "from the parameters of the wrapped model."
        )
    if len(found) > 1:
        raise ForgetlessError("several optimizers train the adapters, whose A and B must move together; use one.")
    try:
        known(found[0])
    except ForgetlessError as error:
        raise ForgetlessError(
            f"{type(found[0]).__name__} moves weights in a way that nothing can be hooked to; train the adapters with "
            "AdamW or another optimizer that takes plain steps."
        ) from error
    return found[0]


def _scaled(scales: Sequence[float], matrices: Sequence[Tensor]) -> list[Tensor]:
    return [scale * each for scale, each in zip(scales, matrices, strict=True)]


def _side_by_side(scales: Sequence[float], matrices: Sequence[Tensor]) -> Tensor:
    return torch.cat(_scaled(scales, matrices), 1)


def _exactly(weight: AdaptedWeight) -> torch.autocast:
    """Inside, products are not rounded to 16 bits, even where a step is taken under autocast."""
    return torch.autocast(weight.importance.device.type, enabled=False)
