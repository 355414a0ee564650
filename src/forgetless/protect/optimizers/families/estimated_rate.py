"""Optimizers that estimate their own rate d beside `lr`: Prodigy and D-Adaptation."""

from __future__ import annotations

from torch import Tensor
from torch.optim import Optimizer

from forgetless.protect.optimizers.response import Group, Known, Response, State, is_called


def prodigy(group: Group, state: State, parameter: Tensor) -> Response:
    """Prodigy (Mishchenko and Defazio, ICML 2024): `s = 2 η d² λ Ω / (√v + d ε)`; its v is of d g.

    A firm pull keeps θ at its start, from where d is estimated, and so keeps d small: it protects more than asked for.
    """
    rate = group["d"] ** 2 * group["lr"] * _correction(group)
    return Response(rate, state["exp_avg_sq"], epsilon=group["d"] * group["eps"])


def d_adapt_adam(group: Group, state: State, parameter: Tensor) -> Response:
    """DAdaptAdam (Defazio and Mishchenko, ICML 2023): `s = 2 η d λ Ω / (√v + ε)`."""
    rate = group["d"] * group["lr"] * group.get("layer_scale", 1.0) * _correction(group)
    return Response(rate, state["exp_avg_sq"], epsilon=group["eps"])


def _correction(group: Group) -> float:
    if not group.get("use_bias_correction"):
        return 1.0
    (beta1, beta2), step = group["betas"], group["k"]
    return float((1 - beta2**step) ** 0.5 / (1 - beta1**step))


def known(optimizer: Optimizer) -> Known | str | None:
    """The form of a class of these names with the usual settings (prodigyopt, dadaptation)."""
    settings = optimizer.defaults.keys()
    if is_called(optimizer, "Prodigy") and {"d", "betas", "eps", "k"} <= settings:
        return Known(prodigy)
    if is_called(optimizer, "DAdaptAdam") and {"d", "betas", "eps", "k"} <= settings:
        return Known(d_adapt_adam)
    if is_called(optimizer, "DAdaptSGD", "DAdaptLion", "DAdaptAdaGrad", "DAdaptAdan", "DAdaptAdanIP"):
        name = type(optimizer).__name__
        return f"no pull for {name} is known here; attach(optimizer, how='gradient'), or train with DAdaptAdam."
    return None
