"""Lion (Chen et al., "Symbolic Discovery of Optimization Algorithms", NeurIPS 2023): the sign of a mean gradient."""

from __future__ import annotations

from torch import Tensor
from torch.optim import Optimizer

from forgetless.protect.optimizers.response import Group, Known, Response, State, comes_from, is_called


def lion(group: Group, state: State, parameter: Tensor) -> Response:
    """Lion: `s = 2 η λ Ω / |m|`, m its mean gradient: a step is `−η sign(m) = −η m / |m|`.

    A weight goes back by 2 η at most: where m passes through 0, s is large by accident (in balance the way is η).
    Reaches the penalized optimum as η decays to 0; at a constant η it stays about η away, as Lion itself does.
    Decoupled weight decay w moves the end to `g + 2 λ Ω (θ−θ*) + w |m| θ = 0`.
    """
    return Response(group["lr"], state["exp_avg"].abs(), root=False, reach=2 * group["lr"])


def known(optimizer: Optimizer) -> Known | str | None:
    """The form of a class called Lion with the usual settings (lion-pytorch, timm); bitsandbytes keeps other states."""
    usual = {"lr", "betas"} <= optimizer.defaults.keys() and not comes_from(optimizer, "bitsandbytes")
    return Known(lion) if usual and is_called(optimizer, "Lion") else None
