"""Adafactor (Shazeer and Stern, ICML 2018), of torch and of transformers: D from row and column means of g²."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer

from forgetless.protect.optimizers.response import Group, Known, Response, State, is_called, number, step_of


def torch_adafactor(group: Group, state: State, parameter: Tensor) -> Response:
    """torch.optim.Adafactor: `s = 2 α λ Ω / (c √v)`, `α = max(ε₂, rms θ) min(η, 1/√t)`, c its clipping by d."""
    if (variance := state.get("variance")) is None:
        row, column = state["row_var"], state["col_var"]
        smallest = torch.finfo(parameter.dtype).eps if group["eps"][0] is None else group["eps"][0]
        variance = (row @ column).div_(row.mean(dim=-2, keepdim=True).clamp_(min=smallest))
    else:
        smallest = torch.finfo(parameter.dtype).eps if group["eps"][0] is None else group["eps"][0]
    second = variance.clamp(min=smallest**2)
    rate = torch.as_tensor(group["lr"]).clamp(max=number(state["step"]) ** -0.5).to(parameter.device)
    rate = _rms(parameter).clamp(min=group["eps"][1]) * rate
    return Response(rate / _clipping(parameter, second, group["d"]), second)


def transformers_adafactor(group: Group, state: State, parameter: Tensor) -> Response:
    """transformers.Adafactor: as torch's, with its relative step size and first moment."""
    step = state["step"]
    rate = group["lr"]
    if group["relative_step"]:
        rate = min(1e-6 * step if group["warmup_init"] else 1e-2, step**-0.5)
    if group["scale_parameter"]:
        rate = rate * torch.as_tensor(state["RMS"]).clamp(min=group["eps"][1])
    if (second := state.get("exp_avg_sq")) is None:
        row, column = state["exp_avg_sq_row"], state["exp_avg_sq_col"]
        second = (row / row.mean(dim=-1, keepdim=True)).unsqueeze(-1) * column.unsqueeze(-2)
    return Response(rate / _clipping(parameter, second, group["clip_threshold"]), second)


def _rms(tensor: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(tensor.detach())
    scaled: Tensor = norm / tensor.numel() ** 0.5
    return scaled


def _clipping(parameter: Tensor, second: Tensor, threshold: float) -> float | Tensor:
    """What the step is divided by, from the gradient that is still there after it."""
    if parameter.grad is None:
        return 1.0
    return (_rms(parameter.grad * second.rsqrt()) / threshold).clamp(min=1.0)


def known(optimizer: Optimizer) -> Known | str | None:
    """The form, if it is one of the two."""
    own = getattr(torch.optim, "Adafactor", None)  # not in the oldest torch
    if own is not None and step_of(type(optimizer)) is step_of(own):
        return Known(torch_adafactor)
    if is_called(optimizer, "Adafactor") and "clip_threshold" in optimizer.defaults:
        return Known(transformers_adafactor) if "relative_step" in optimizer.defaults else None
    return None
