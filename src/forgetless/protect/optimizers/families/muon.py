"""Muon (Jordan et al., 2024), as torch has it: a matrix's mean gradient, orthogonalized."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.optim import Optimizer

from forgetless.model.sharding import whole
from forgetless.protect.optimizers.response import Group, Known, Response, State, step_of

_CAUTION = (
    "Muon orthogonalizes a whole matrix of gradients, which no pull of single weights can balance: the pull has the "
    "size of Muon's step, but training does not end at the optimum of the penalized loss; "
    "attach(optimizer, how='gradient') adds the penalty to what Muon orthogonalizes."
)


def muon(group: Group, state: State, parameter: Tensor) -> Response:
    """Muon: `s = 2 η' λ Ω √k / ‖m‖`, m its mean gradient, k the smaller side: `‖O‖ = √k` for an orthogonal O.

    η' is the adjusted learning rate. The balance is `O ‖g‖ / √k + 2 λ Ω (θ − θ*) = 0`, with O for the direction of g.
    """
    rows, columns = parameter.shape[:2]
    ratio = {
        "match_rms_adamw": 0.2 * math.sqrt(max(rows, columns)),
        "spectral_unclamped": math.sqrt(rows / columns),
    }.get(str(group.get("adjust_lr_fn")), math.sqrt(max(1, rows / columns)))
    size = whole(state["momentum_buffer"].norm()).clamp(min=group["eps"])
    return Response(group["lr"] * ratio * math.sqrt(min(rows, columns)) / size)


def known(optimizer: Optimizer) -> Known | str | None:
    """The form, if it is torch's Muon (not in the oldest torch)."""
    own = getattr(torch.optim, "Muon", None)
    return Known(muon, caution=_CAUTION) if own is not None and step_of(type(optimizer)) is step_of(own) else None
