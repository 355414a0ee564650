"""The form of each optimizer: by how much the pull goes back, so that it balances the optimizer's own step.

The pull moves anchored weights after the optimizer's step, `θ ← (θ + s θ*) / (1 + s)`. If a step moves θ by
`−r g / D` under a steady gradient g, then `s = 2 λ Ω r / D` makes the two balance where

    g + 2 λ Ω (θ − θ*) = 0,

the stationary point of the penalized loss `L + λ Σ Ω (θ−θ*)²`, whatever the strength. Any other s finds another
point: the textbook `s = 2 η λ Ω` is too weak by 1/(1−μ) under momentum.

`families/` has a file for each kind of optimizers, with a function that gives r and D from a parameter's group and
state. Optimizers of other packages are recognized by the name of their class and their settings, and are not imported.
Three things that come with an optimizer bear on the end that is reached:

- Weight decay that is added to the gradient is part of g, as it is in the penalized loss.
- Decoupled weight decay w (AdamW; NAdam and RAdam with `decoupled_weight_decay`) is not: the end solves
  `g + 2 λ Ω (θ − θ*) + w (η/r) D θ = 0`. The loss form's end is of the same kind with a D of its own, for there D is
  made of the penalty's gradient as well.
- Clipping scales the loss's gradient by some c ≤ 1 and not the pull: the end solves `c g + 2 λ Ω (θ − θ*) = 0`, which
  is the optimum for the strength λ/c, nearer to θ* than asked for. c = 1 where the loss's gradient stays below the
  limit; at the penalized optimum it is `2 λ Ω (θ* − θ)`, not 0.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer

from forgetless.errors import ForgetlessError
from forgetless.protect.optimizers.families import (
    adafactor,
    estimated_rate,
    lion,
    muon,
    quantized,
    schedule_free,
    torch_optim,
)
from forgetless.protect.optimizers.response import Group, Known, Response, State, is_called, step_of

FAMILIES = (torch_optim, adafactor, muon, lion, estimated_rate, schedule_free, quantized)


def decoupled(group: Group, state: State, parameter: Tensor) -> Response:
    """Any other optimizer: `s = 2 η λ Ω`, the way decoupled weight decay works; η is `lr`, times `d` if it has one.

    Finite too, but the balance is between its own step u, whatever that is, and the penalty:
    `u / η = 2 λ Ω (θ − θ*)`, which is not the optimum of the penalized loss.
    """
    estimated = group.get("d")
    return Response(group["lr"] * estimated if isinstance(estimated, float | Tensor) else group["lr"])


def known(optimizer: Optimizer) -> Known | str:
    """The form for `optimizer`, or the sentence that says why no pull can follow it.

    Raises:
        ForgetlessError: an optimizer that neither a pull nor an addition to the gradients can protect from.
    """
    refuse_unhookable(optimizer)
    name = type(optimizer).__name__
    if getattr(optimizer, "master_weights", None):
        return (
            f"{name} trains copies of the weights (master_weights) and overwrites the weights with them, so a pull on "
            "the weights would be lost; attach(optimizer, how='gradient') instead."
        )
    for family in FAMILIES:
        found: Known | str | None = family.known(optimizer)
        if found is not None:
            return found
    return Known(
        decoupled,
        at_once=True,
        caution=(
            f"how {name} scales gradients is not known here, so the pull is s = 2·lr·strength·Ω: its balance with the "
            "gradients is not the optimum of the penalized loss, and where lr is not what scales the steps it is far "
            "too strong or too weak; attach(optimizer, how='gradient') seeks that optimum, and may diverge."
        ),
    )


def refuse_unhookable(optimizer: Optimizer, term: str = "anchor.penalty()") -> None:
    """Refuse an optimizer whose gradients, or weights, nothing can be added to around its step.

    Args:
        optimizer: without wrappers.
        term: what can be added to the loss instead.

    Raises:
        ForgetlessError: as said, by name.
    """
    if step_of(type(optimizer)) is step_of(torch.optim.LBFGS):
        raise ForgetlessError(
            "LBFGS compares losses inside its step, so the penalty must be in them: "
            f"add {term} to the loss in its closure instead."
        )
    name = type(optimizer).__name__
    if any(getattr(hook, "packs", False) for hook in optimizer._optimizer_step_pre_hooks.values()):
        raise ForgetlessError(
            f"a frozen core is attached to this {name}, whose states are of the free elements only: protect with one "
            "of the two, or freeze whole tensors (granularity='tensor')."
        )
    if is_called(optimizer, "Lomo", "LOMO", "AdaLomo", "AdaLOMO") or hasattr(optimizer, "fused_backward"):
        raise ForgetlessError(
            f"{name} moves the weights during the backward pass and not in a step, so nothing can be hooked to it: "
            f"add {term} to the loss instead."
        )
    if hasattr(optimizer, "first_step") and hasattr(optimizer, "second_step"):
        raise ForgetlessError(
            f"{name} moves the weights in first_step() and second_step() and shows no base_optimizer to attach to: "
            f"add {term} to the loss instead."
        )
    if is_called(optimizer, "CPUOffloadOptimizer"):
        raise ForgetlessError(
            f"{name} trains copies of the weights on the CPU and overwrites the weights with them: "
            f"add {term} to the loss instead."
        )
