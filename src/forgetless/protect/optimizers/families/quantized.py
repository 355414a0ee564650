"""Adam and AdamW with second moments in 8 bits: of bitsandbytes, and of torchao."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer

from forgetless.protect.optimizers.response import Group, Known, Response, State, comes_from, number

_BLOCKS = (256, 2048, 128, 512, 1024, 4096)  # values that share a scale: newest version first


def bitsandbytes_adam(group: Group, state: State, parameter: Tensor) -> Response:
    """bitsandbytes: `s = 2 η λ Ω / (√v̂ + ε)`, v read from its 8 bits: a table's entry times its block's scale."""
    second = state["state2"]
    if second.dtype == torch.uint8:
        entries = state["qmap2"].to(torch.float32)[second.flatten().long()]
        scales = state["absmax2"] if "absmax2" in state else state["max2"]
        second = (entries * _spread(scales.flatten(), entries.numel())).view(parameter.shape)
    correction = 1 - group["betas"][1] ** number(state["step"])
    return Response(group["lr"], second, scale=1 / correction, epsilon=group["eps"])


def torchao_adam(group: Group, state: State, parameter: Tensor) -> Response:
    """torchao: as Adam, v read from its 8 or 4 bits."""
    second = state["max_exp_avg_sq"] if group.get("amsgrad") else state["exp_avg_sq"]
    if hasattr(second, "dequantize"):
        second = second.dequantize()
    correction = 1 - group["betas"][1] ** number(state["step"])
    return Response(group["lr"], second, scale=1 / correction, epsilon=group["eps"])


def _spread(scales: Tensor, size: int) -> Tensor:
    """Each block's scale for all of its values."""
    if scales.numel() == 1:
        return scales
    block = next((each for each in _BLOCKS if -(-size // each) == scales.numel()), -(-size // scales.numel()))
    return scales.repeat_interleave(block)[:size]


def known(optimizer: Optimizer) -> Known | str | None:
    """The form, by the package that the class comes from and its settings."""
    if not {"betas", "eps", "lr"} <= optimizer.defaults.keys():
        return None
    name = type(optimizer).__name__
    if comes_from(optimizer, "bitsandbytes") and getattr(optimizer, "optimizer_name", "") == "adam":
        bits = getattr(getattr(optimizer, "args", None), "optim_bits", 32)
        return Known(bitsandbytes_adam, caution=_ROUNDED.format(name) if bits < 32 else "")
    if comes_from(optimizer, "torchao") and "Adam" in name:
        return Known(torchao_adam, caution=_ROUNDED.format(name))
    return None


_ROUNDED = (
    "{} rounds its second moments to a few bits, which the pull's balance is made of: training ends near the optimum "
    "of the penalized loss, and not at it; attach(optimizer, how='gradient') ends there."
)
