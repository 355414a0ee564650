"""What is said of a model that cannot be measured: sentences that name the place and the way out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from forgetless import data
from forgetless.errors import ForgetlessError
from forgetless.parameters import canonical

WAY_OUT = (
    "so no sample has an importance of its own; give it running statistics (batch norm), switch its randomness off, or "
    "measure with batch_size=1 if a batch of one is how it is used."
)


def refuse_devices(model: nn.Module) -> None:
    """Refuse a model whose tensors are on several devices, or have no values.

    Raises:
        ForgetlessError: naming a tensor of each device.
    """
    found: dict[torch.device, str] = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        found.setdefault(tensor.device, canonical(name))
    if len(found) > 1:
        listed = ", ".join(f"{name!r} on {device}" for device, name in found.items())
        raise ForgetlessError(f"the model is on several devices: {listed}; move it to one (model.to(device)).")
    for device, name in found.items():
        if device.type == "meta":
            raise ForgetlessError(f"{name!r} is on the meta device and has no values; load the model's weights first.")


def unfit(model: nn.Module, pair: Any, scalars: Callable[[nn.Module, Any], Tensor], error: Exception) -> str | None:
    """Why the model cannot compute two samples, or one alone; `None` if it can, so that the error is none of its own.

    Args:
        model: in eval mode.
        pair: two samples.
        scalars: (model, batch) → a scalar per sample.
        error: what was raised when they were tried.
    """
    reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
    shapes = ", ".join(str(tuple(tensor.shape)) for tensor in data.tensors(pair))
    if not _runs(model, pair, scalars):
        return f"{type(model).__name__} does not take the first batch (inputs of shape {shapes}): {reason}."
    if _runs(model, data.rows(pair, 0, 1), scalars):
        return None
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            where = f"{name!r} ({type(module).__name__})"
            return f"what {where} computes for a sample depends on the other samples of its batch, {WAY_OUT}"
    return f"{type(model).__name__} takes two samples and not one alone ({reason}), {WAY_OUT}"


def _runs(model: nn.Module, batch: Any, scalars: Callable[[nn.Module, Any], Tensor]) -> bool:
    try:
        with torch.no_grad():
            scalars(model, batch)
    except ForgetlessError:
        raise
    except Exception:
        return False
    return True
