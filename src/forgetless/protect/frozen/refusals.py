"""What cannot be frozen, each refused by name and with a way out."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from torch.utils.weak import WeakTensorKeyDictionary

from forgetless.errors import ForgetlessError
from forgetless.model.parameters import listing
from forgetless.model.sharding import is_sharded
from forgetless.protect.frozen.share import Share

frozen: WeakTensorKeyDictionary = WeakTensorKeyDictionary()  # the parameters that are frozen now → True


def refuse_unfit(parameters: Mapping[str, nn.Parameter], masks: Mapping[str, Tensor]) -> None:
    """Refuse masks that are of another model, and parameters that cannot stand still.

    Raises:
        ForgetlessError: as said.
    """
    if strangers := [name for name in masks if name not in parameters]:
        raise ForgetlessError(f"the core is of another model: this one has no {listing(strangers)}.")
    for name, mask in masks.items():
        parameter = parameters[name]
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            raise ForgetlessError(f"the mask of {name!r} is no boolean tensor.")
        if hasattr(parameter, "ds_id"):
            raise ForgetlessError(f"{name!r} is partitioned by DeepSpeed, whose optimizers cannot be packed; use DDP.")
        if is_sharded(parameter) or type(parameter).__name__ == "FlatParameter":
            raise ForgetlessError(
                f"{name!r} is sharded by FSDP, and a core of sharded parameters is not supported: use DDP, or freeze "
                "whole parameters yourself (requires_grad_(False)) before the model is sharded."
            )
        if not parameter.is_floating_point() or is_traceable_wrapper_subclass(parameter.data):
            raise ForgetlessError(f"{name!r} is quantized ({parameter.dtype}), so that it is not trained as it is.")
        if mask.shape != parameter.shape:
            raise ForgetlessError(
                f"the core is of another model: its mask of {name!r} has the shape {tuple(mask.shape)} where the "
                f"parameter has {tuple(parameter.shape)}."
            )
        if parameter in frozen:
            raise ForgetlessError(f"{name!r} is frozen already; remove() that core first.")
        if not bool(torch.isfinite(parameter).all()):
            raise ForgetlessError(f"{name!r} has NaN or Inf: such weights cannot be frozen.")


def refuse_nothing_left(parameters: Mapping[str, nn.Parameter], shares: Mapping[str, Share]) -> None:
    """Refuse a core that leaves nothing to be trained.

    Raises:
        ForgetlessError: as said.
    """
    free = sum(
        parameter.numel() - (shares[name].frozen if name in shares else 0)
        for name, parameter in parameters.items()
        if parameter.requires_grad
    )
    if not free:
        raise ForgetlessError(
            "the core is the whole model, so that nothing is left to be trained; choose a smaller keep."
        )
