"""How far each optimiser moves under a steady gradient: what the pull has to balance.

The pull moves anchored weights after the optimiser's step, `θ ← (θ + s θ*) / (1 + s)`. If a step moves θ by
`−r g / D` under a steady gradient g, then `s = 2 λ Ω r / D` makes the two balance where

    g + 2 λ Ω (θ − θ*) = 0,

the stationary point of the penalised loss `L + λ Σ Ω (θ−θ*)²`, whatever the strength. Any other s finds another
point: the textbook `s = 2 η λ Ω` is too weak by 1/(1−μ) under momentum.

`FORMS` holds one function for each family of torch's optimisers. It gets the parameter's group and its state (sliced
to the piece at hand) and returns r and D. Weight decay that an optimiser adds to the gradient is part of g, as it is in
the penalised loss; clipping changes g, and with it the point where the two balance.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from forgetless.errors import ForgetlessError

Group = Mapping[str, Any]
State = Mapping[str, Any]
Response = tuple[float | Tensor, Tensor | None]  # r, and D in the parameter's shape (None: 1)
Form = Callable[[Group, State], Response]


def sgd(group: Group, state: State) -> Response:
    """SGD: `s = 2 η λ Ω (1−dampening) / (1−μ)`, Nesterov included.

    A steady gradient fills the momentum buffer to `g (1−dampening) / (1−μ)`; without momentum there is no dampening.
    """
    taken = 1 - group["dampening"] if group["momentum"] else 1.0
    return group["lr"] * taken / (1 - group["momentum"]), None


def adam(group: Group, state: State) -> Response:
    """Adam and AdamW, amsgrad included: `s = 2 η λ Ω / (√v̂ + ε)`.

    Reaches the penalised optimum as η decays to 0; at a constant η Adam itself stays 1e-4 to 1e-3 away. AdamW's
    decoupled decay w moves the end to `g + 2 λ Ω (θ−θ*) + w (√v̂ + ε) θ = 0`.
    """
    second = state["max_exp_avg_sq"] if group["amsgrad"] else state["exp_avg_sq"]
    correction = 1 - group["betas"][1] ** _number(state["step"])
    return group["lr"], (second / correction).sqrt_().add_(group["eps"])


def nadam(group: Group, state: State) -> Response:
    """NAdam: as Adam, times what it takes of the gradient and of the moment together (1 in the long run)."""
    beta1, beta2 = group["betas"]
    step, product = _number(state["step"]), _number(state["mu_product"])
    mu, mu_next = (beta1 * (1 - 0.5 * 0.96 ** (t * group["momentum_decay"])) for t in (step, step + 1))
    taken = (1 - mu) / (1 - product) + mu_next * (1 - beta1**step) / (1 - product * mu_next)
    return group["lr"] * taken, (state["exp_avg_sq"] / (1 - beta2**step)).sqrt_().add_(group["eps"])


def radam(group: Group, state: State) -> Response:
    """RAdam: `s = 2 η λ Ω ρ √(1−β₂ᵗ) / (√v + ε)` with its rectification ρ; `s = 2 η λ Ω` before that sets in."""
    beta2, step = group["betas"][1], _number(state["step"])
    correction = 1 - beta2**step
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * step * beta2**step / correction
    square = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length) * correction
    denominator = state["exp_avg_sq"].sqrt().add_(group["eps"])
    if isinstance(length, Tensor):
        rectified = torch.where(length > 5, square.clamp_min(0).sqrt(), 1.0)
        return group["lr"] * rectified, torch.where(length > 5, denominator, 1.0)
    return (group["lr"] * square**0.5, denominator) if length > 5 else (group["lr"], None)


def adamax(group: Group, state: State) -> Response:
    """Adamax: `s = 2 η λ Ω / u`, u the decaying maximum of |g| + ε."""
    return group["lr"], state["exp_inf"]


def rmsprop(group: Group, state: State) -> Response:
    """RMSprop: `s = 2 η λ Ω / ((1−μ)(√v + ε))`; when centred, v is the variance."""
    second = state["square_avg"]
    if group["centered"]:
        second = second.addcmul(state["grad_avg"], state["grad_avg"], value=-1)
    return group["lr"] / (1 - group["momentum"]), second.sqrt().add_(group["eps"])


def adagrad(group: Group, state: State) -> Response:
    """Adagrad: `s = 2 η_t λ Ω / (√Σg² + ε)`, `η_t = η / (1 + (t−1) lr_decay)`."""
    rate = group["lr"] / (1 + (_number(state["step"]) - 1) * group["lr_decay"])
    return rate, state["sum"].sqrt().add_(group["eps"])


def sparse_adam(group: Group, state: State) -> Response:
    """SparseAdam: `s = 2 η λ Ω √(1−β₂ᵗ) / (√v + ε)`; rows without a gradient are pulled at every step too."""
    correction = 1 - group["betas"][1] ** _number(state["step"])
    return group["lr"] * correction**0.5, state["exp_avg_sq"].sqrt().add_(group["eps"])


def decoupled(group: Group, state: State) -> Response:
    """Any other optimiser: `s = 2 η λ Ω`, the way decoupled weight decay works.

    Finite and stable too, but the balance is between its own step u, whatever that is, and the penalty:
    `u / η = 2 λ Ω (θ − θ*)`, which is not the optimum of the penalised loss.
    """
    return group["lr"], None


FORMS: dict[type[Optimizer], Form] = {
    torch.optim.SGD: sgd,
    torch.optim.Adam: adam,
    torch.optim.AdamW: adam,
    torch.optim.NAdam: nadam,
    torch.optim.RAdam: radam,
    torch.optim.Adamax: adamax,
    torch.optim.RMSprop: rmsprop,
    torch.optim.Adagrad: adagrad,
    torch.optim.SparseAdam: sparse_adam,
}


def form_of(optimizer: Optimizer) -> Form:
    """The form for `optimizer`, known by the torch class whose `step` it runs (a subclass may keep that).

    Raises:
        ForgetlessError: LBFGS, which takes many steps inside one and compares their losses.
    """
    step = inspect.unwrap(type(optimizer).step)
    if step is inspect.unwrap(torch.optim.LBFGS.step):
        raise ForgetlessError(
            "LBFGS compares losses inside its step, so the penalty must be in them: "
            "add anchor.penalty() to the loss in its closure instead."
        )
    known = (form for kind, form in FORMS.items() if inspect.unwrap(kind.step) is step)
    return next(known, decoupled)


def _number(value: Any) -> Any:
    """A count as a number, unless it lives on a device: asking for it there would stop the stream."""
    return float(value) if not isinstance(value, Tensor) or value.device.type == "cpu" else value
