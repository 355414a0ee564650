"""Schedule-free optimizers (Defazio et al., "The Road Less Scheduled", NeurIPS 2024), of the package schedulefree.

They step on a sequence z, average it into x, and train at `y = (1−β) z + β x`, which is the parameter in train mode
(in eval mode it is x). The pull moves z; x and y follow as they would had z's step ended there.
"""

from __future__ import annotations

from torch import Tensor
from torch.optim import Optimizer

from forgetless.protect.optimizers.response import Group, Known, Response, State, is_called


def sgd(group: Group, state: State, parameter: Tensor) -> Response:
    """SGDScheduleFree: `s = 2 η λ Ω` on z, with the η of its warm-up."""
    return Response(_rate(group), moved=state["z"], follow=_follow(group, group["momentum"]))


def adamw(group: Group, state: State, parameter: Tensor) -> Response:
    """AdamWScheduleFree: `s = 2 η λ Ω / (√v̂ + ε)` on z."""
    scale = 1 / (1 - group["betas"][1] ** group["k"])
    follow = _follow(group, group["betas"][0])
    return Response(
        _rate(group), state["exp_avg_sq"], scale=scale, epsilon=group["eps"], moved=state["z"], follow=follow
    )


def radam(group: Group, state: State, parameter: Tensor) -> Response:
    """RAdamScheduleFree: as AdamW's with a rectified η; `s = 2 η λ Ω` on z before the rectification sets in."""
    beta2, step = group["betas"][1], group["k"]
    length = 2 / (1 - beta2) - 1 - 2 * step * beta2**step / (1 - beta2**step)
    found = adamw(group, state, parameter)
    return found if length > 4 else found._replace(second=None)


def _rate(group: Group) -> float:
    if "scheduled_lr" in group:
        return float(group["scheduled_lr"])
    warm = min(1.0, group["k"] / max(1, group.get("warmup_steps", 0)))
    return float(group["lr"] * warm)


def _follow(group: Group, beta: float) -> float:
    """`β c + 1 − β`, the part of z's move that y makes: c of it goes into the average x."""
    weight = float(group["k"]) ** group["r"] * group["lr_max"] ** group["weight_lr_power"]
    averaged = weight / group["weight_sum"] if group["weight_sum"] else 0.0
    return float(beta * averaged + 1 - beta)


def known(optimizer: Optimizer) -> Known | str | None:
    """The form of a class of these names with the usual settings."""
    settings = optimizer.defaults.keys()
    if {"k", "r", "lr_max", "weight_sum", "weight_lr_power"} <= settings:
        for name, form in (("SGDScheduleFree", sgd), ("AdamWScheduleFree", adamw), ("RAdamScheduleFree", radam)):
            if is_called(optimizer, name):
                return Known(form)
    if "ScheduleFree" in type(optimizer).__name__:
        name = type(optimizer).__name__
        return (
            f"no pull for {name} is known here, which trains at other weights than it steps on: use SGDScheduleFree, "
            "AdamWScheduleFree or RAdamScheduleFree, or attach(optimizer, how='gradient')."
        )
    return None
