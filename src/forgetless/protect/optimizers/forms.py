"""How far each optimizer moves under a steady gradient: what the pull has to balance.

The pull moves anchored weights after the optimizer's step, `θ ← (θ + s θ*) / (1 + s)`. If a step moves θ by
`−r g / D` under a steady gradient g, then `s = 2 λ Ω r / D` makes the two balance where

    g + 2 λ Ω (θ − θ*) = 0,

the stationary point of the penalized loss `L + λ Σ Ω (θ−θ*)²`, whatever the strength. Any other s finds another
point: the textbook `s = 2 η λ Ω` is too weak by 1/(1−μ) under momentum.

`FORMS` holds one function for each family of torch's optimizers. It gets the parameter's group and its state and
returns r and D. Three things that come with the optimizer bear on the end that is reached:

- Weight decay that is added to the gradient is part of g, as it is in the penalized loss.
- Decoupled weight decay w (AdamW; NAdam and RAdam with `decoupled_weight_decay`) is not: the end solves
  `g + 2 λ Ω (θ − θ*) + w (η/r) D θ = 0`. The loss form's end is of the same kind with a D of its own, for there D is
  made of the penalty's gradient as well.
- Clipping scales the loss's gradient by some c ≤ 1 and not the pull: the end solves `c g + 2 λ Ω (θ − θ*) = 0`, which
  is the optimum for the strength λ/c, nearer to θ* than asked for. c = 1 where the loss's gradient stays below the
  limit; at the penalized optimum it is `2 λ Ω (θ* − θ)`, not 0.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from forgetless.errors import ForgetlessError
from forgetless.protect.anchored_parameter import Index

Group = Mapping[str, Any]
State = Mapping[str, Any]


class Response(NamedTuple):
    """r, and what D is made of: 1, or v, or `√(scale v − m²) + ε`.

    Attributes:
        rate: r.
        second: v, in the parameter's shape; None where D is 1.
        mean: m, in the parameter's shape; None for 0.
        scale: what v is multiplied by.
        epsilon: ε.
        root: whether D is the root; v itself otherwise.
    """

    rate: float | Tensor
    second: Tensor | None = None
    mean: Tensor | None = None
    scale: float | Tensor = 1.0
    epsilon: float | Tensor = 0.0
    root: bool = True

    def divisor(self, part: Index = ()) -> Tensor | None:
        """D in one part of the parameter, a new tensor; None for 1."""
        if self.second is None:
            return None
        if not self.root:
            return self.second[part].clone()
        square = self.second[part] * self.scale
        if self.mean is not None:
            square.addcmul_(self.mean[part], self.mean[part], value=-1).clamp_(min=0)
        return square.sqrt_().add_(self.epsilon)


Form = Callable[[Group, State], Response]


def sgd(group: Group, state: State) -> Response:
    """SGD: `s = 2 η λ Ω (1−dampening) / (1−μ)`, Nesterov included.

    A steady gradient fills the momentum buffer to `g (1−dampening) / (1−μ)`; without momentum there is no dampening.
    """
    taken = 1 - group["dampening"] if group["momentum"] else 1.0
    return Response(group["lr"] * taken / (1 - group["momentum"]))


def adam(group: Group, state: State) -> Response:
    """Adam and AdamW, amsgrad included: `s = 2 η λ Ω / (√v̂ + ε)`.

    Reaches the penalized optimum as η decays to 0; at a constant η Adam itself stays 1e-4 to 1e-3 away. AdamW's
    decoupled decay w moves the end to `g + 2 λ Ω (θ−θ*) + w (√v̂ + ε) θ = 0`.
    """
    second = state["max_exp_avg_sq"] if group["amsgrad"] else state["exp_avg_sq"]
    correction = 1 - group["betas"][1] ** _number(state["step"])
    return Response(group["lr"], second, scale=1 / correction, epsilon=group["eps"])


def nadam(group: Group, state: State) -> Response:
    """NAdam: as Adam, times what it takes of the gradient and of the moment together (1 in the long run)."""
    beta1, beta2 = group["betas"]
    step, product = _number(state["step"]), _number(state["mu_product"])
    mu, mu_next = (beta1 * (1 - 0.5 * 0.96 ** (t * group["momentum_decay"])) for t in (step, step + 1))
    taken = (1 - mu) / (1 - product) + mu_next * (1 - beta1**step) / (1 - product * mu_next)
    return Response(group["lr"] * taken, state["exp_avg_sq"], scale=1 / (1 - beta2**step), epsilon=group["eps"])


def radam(group: Group, state: State) -> Response:
    """RAdam: `s = 2 η λ Ω ρ √(1−β₂ᵗ) / (√v + ε)` with its rectification ρ; `s = 2 η λ Ω` before that sets in."""
    beta2, step = group["betas"][1], _number(state["step"])
    correction = 1 - beta2**step
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * step * beta2**step / correction
    square = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length) * correction
    second, epsilon = state["exp_avg_sq"], group["eps"]
    if isinstance(length, Tensor):  # on a device: 0 · v and ε = 1 make D = 1
        sets_in = length > 5
        rectified = torch.where(sets_in, square.clamp_min(0).sqrt(), 1.0)
        scale = torch.where(sets_in, 1.0, 0.0)
        return Response(group["lr"] * rectified, second, scale=scale, epsilon=torch.where(sets_in, epsilon, 1.0))
    return Response(group["lr"] * square**0.5, second, epsilon=epsilon) if length > 5 else Response(group["lr"])


def adamax(group: Group, state: State) -> Response:
    """Adamax: `s = 2 η λ Ω / u`, u the decaying maximum of |g| + ε."""
    return Response(group["lr"], state["exp_inf"], root=False)


def rmsprop(group: Group, state: State) -> Response:
    """RMSprop: `s = 2 η λ Ω / ((1−μ)(√v + ε))`; when centered, v is the variance."""
    mean = state["grad_avg"] if group["centered"] else None
    return Response(group["lr"] / (1 - group["momentum"]), state["square_avg"], mean, epsilon=group["eps"])


def adagrad(group: Group, state: State) -> Response:
    """Adagrad: `s = 2 η_t λ Ω / (√Σg² + ε)`, `η_t = η / (1 + (t−1) lr_decay)`."""
    rate = group["lr"] / (1 + (_number(state["step"]) - 1) * group["lr_decay"])
    return Response(rate, state["sum"], epsilon=group["eps"])


def sparse_adam(group: Group, state: State) -> Response:
    """SparseAdam: `s = 2 η λ Ω √(1−β₂ᵗ) / (√v + ε)`; rows without a gradient are pulled at every step too."""
    correction = 1 - group["betas"][1] ** _number(state["step"])
    return Response(group["lr"] * correction**0.5, state["exp_avg_sq"], epsilon=group["eps"])


def decoupled(group: Group, state: State) -> Response:
    """Any other optimizer: `s = 2 η λ Ω`, the way decoupled weight decay works.

    Finite and stable too, but the balance is between its own step u, whatever that is, and the penalty:
    `u / η = 2 λ Ω (θ − θ*)`, which is not the optimum of the penalized loss.
    """
    return Response(group["lr"])


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
