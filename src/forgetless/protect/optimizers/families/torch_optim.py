"""torch's own optimizers that scale each weight by itself; fused, foreach and capturable ones have the same forms."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer

from forgetless.protect.optimizers.response import Form, Group, Known, Response, State, number, step_of


def sgd(group: Group, state: State, parameter: Tensor) -> Response:
    """SGD: `s = 2 η λ Ω (1−dampening) / (1−μ)`, Nesterov included.

    A steady gradient fills the momentum buffer to `g (1−dampening) / (1−μ)`; without momentum there is no dampening.
    """
    taken = 1 - group["dampening"] if group["momentum"] else 1.0
    return Response(group["lr"] * taken / (1 - group["momentum"]))


def adam(group: Group, state: State, parameter: Tensor) -> Response:
    """Adam and AdamW, amsgrad included: `s = 2 η λ Ω / (√v̂ + ε)`.

    Reaches the penalized optimum as η decays to 0; at a constant η Adam itself stays 1e-4 to 1e-3 away. AdamW's
    decoupled decay w moves the end to `g + 2 λ Ω (θ−θ*) + w (√v̂ + ε) θ = 0`.
    """
    second = state["max_exp_avg_sq"] if group["amsgrad"] else state["exp_avg_sq"]
    correction = 1 - group["betas"][1] ** number(state["step"])
    return Response(group["lr"], second, scale=1 / correction, epsilon=group["eps"])


def nadam(group: Group, state: State, parameter: Tensor) -> Response:
    """NAdam: as Adam, times what it takes of the gradient and of the moment together (1 in the long run)."""
    beta1, beta2 = group["betas"]
    step, product = number(state["step"]), number(state["mu_product"])
    mu, mu_next = (beta1 * (1 - 0.5 * 0.96 ** (t * group["momentum_decay"])) for t in (step, step + 1))
    taken = (1 - mu) / (1 - product) + mu_next * (1 - beta1**step) / (1 - product * mu_next)
    return Response(group["lr"] * taken, state["exp_avg_sq"], scale=1 / (1 - beta2**step), epsilon=group["eps"])


def radam(group: Group, state: State, parameter: Tensor) -> Response:
    """RAdam: `s = 2 η λ Ω ρ √(1−β₂ᵗ) / (√v + ε)` with its rectification ρ; `s = 2 η λ Ω` before that sets in."""
    beta2, step = group["betas"][1], number(state["step"])
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


def adamax(group: Group, state: State, parameter: Tensor) -> Response:
    """Adamax: `s = 2 η λ Ω / u`, u the decaying maximum of |g| + ε."""
    return Response(group["lr"], state["exp_inf"], root=False)


def rmsprop(group: Group, state: State, parameter: Tensor) -> Response:
    """RMSprop: `s = 2 η λ Ω / ((1−μ)(√v + ε))`; when centered, v is the variance."""
    mean = state["grad_avg"] if group["centered"] else None
    return Response(group["lr"] / (1 - group["momentum"]), state["square_avg"], mean, epsilon=group["eps"])


def adagrad(group: Group, state: State, parameter: Tensor) -> Response:
    """Adagrad: `s = 2 η_t λ Ω / (√Σg² + ε)`, `η_t = η / (1 + (t−1) lr_decay)`."""
    rate = group["lr"] / (1 + (number(state["step"]) - 1) * group["lr_decay"])
    return Response(rate, state["sum"], epsilon=group["eps"])


def adadelta(group: Group, state: State, parameter: Tensor) -> Response:
    """Adadelta: `s = 2 η λ Ω √(Δ + ε) / √(v + ε)`, Δ and v the running means of squared steps and gradients."""
    second = (state["square_avg"] + group["eps"]).div_(state["acc_delta"] + group["eps"])
    return Response(group["lr"], second)


def asgd(group: Group, state: State, parameter: Tensor) -> Response:
    """ASGD: `s = 2 η_t λ Ω`, `η_t = η / (1 + lambd η (t−1))^alpha`; its average `ax` is a copy, which is not pulled."""
    step = number(state["step"])
    return Response(group["lr"] / (1 + group["lambd"] * group["lr"] * (step - 1)) ** group["alpha"])


def sparse_adam(group: Group, state: State, parameter: Tensor) -> Response:
    """SparseAdam: `s = 2 η λ Ω √(1−β₂ᵗ) / (√v + ε)`; rows without a gradient are pulled at every step too."""
    correction = 1 - group["betas"][1] ** number(state["step"])
    return Response(group["lr"] * correction**0.5, state["exp_avg_sq"], epsilon=group["eps"])


FORMS: dict[type[Optimizer], Form] = {
    torch.optim.SGD: sgd,
    torch.optim.Adam: adam,
    torch.optim.AdamW: adam,
    torch.optim.NAdam: nadam,
    torch.optim.RAdam: radam,
    torch.optim.Adamax: adamax,
    torch.optim.RMSprop: rmsprop,
    torch.optim.Adagrad: adagrad,
    torch.optim.Adadelta: adadelta,
    torch.optim.ASGD: asgd,
    torch.optim.SparseAdam: sparse_adam,
}


def known(optimizer: Optimizer) -> Known | str | None:
    """The form by the torch class whose `step` the optimizer runs (a subclass may keep that)."""
    step = step_of(type(optimizer))
    if step is step_of(torch.optim.Rprop):
        return (
            "Rprop takes longer steps as long as a gradient keeps its sign, which it does where the penalty balances "
            "it, so no pull fits; attach(optimizer, how='gradient') instead."
        )
    for kind, form in FORMS.items():
        if step_of(kind) is step:
            return Known(form, at_once=form is sgd)
    return None
