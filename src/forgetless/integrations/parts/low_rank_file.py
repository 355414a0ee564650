"""The state of a `DeltaAnchor` as tensors, read strictly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.protect.anchor_file import checked

_KEPT = ("left", "right", "factor")
_KINDS = ("importance", *_KEPT, "ordinary", "dial")


@dataclass(frozen=True)
class State:
    """λ, what is anchored of each base weight, and the state of the ordinary anchor beside it.

    Attributes:
        strength: λ.
        importance: base weight's name → Ω in its shape.
        kept: base weight's name → L, R and perhaps c of Δ*, by those of `left`, `right` and `factor` that it has.
        ordinary: the state of the anchor of copies and other trainable parameters.
        dial: where the dial stands that chooses λ.
    """

    strength: float
    importance: dict[str, Tensor]
    kept: dict[str, dict[str, Tensor]]
    ordinary: dict[str, Tensor]
    dial: dict[str, float]

    def tensors(self) -> dict[str, Tensor]:
        """`strength`, `dial.…`, `importance.NAME`, `left.NAME`, `right.NAME`, `factor.NAME` and `ordinary.…`; views."""
        return {
            "strength": torch.tensor(self.strength, dtype=torch.float64),
            **{f"dial.{name}": torch.tensor(number, dtype=torch.float64) for name, number in self.dial.items()},
            **{f"importance.{name}": tensor for name, tensor in self.importance.items()},
            **{f"{part}.{name}": each for name, parts in self.kept.items() for part, each in parts.items()},
            **{f"ordinary.{name}": tensor for name, tensor in self.ordinary.items()},
        }

    @classmethod
    def parsed(cls, tensors: Mapping[str, Tensor]) -> State:
        """The state that `tensors()` gave.

        Raises:
            ForgetlessError: a key is missing or unexpected, a value is not finite, or an importance is negative.
        """
        strength, parts = tensors.get("strength"), {kind: dict[str, Tensor]() for kind in _KINDS}
        if not isinstance(strength, Tensor) or strength.numel() != 1:
            raise ForgetlessError("the anchor's state lacks its 'strength', one number.")
        for key, tensor in tensors.items():
            kind, _, name = key.partition(".")
            if key != "strength" and (kind not in parts or not name):
                raise ForgetlessError(f"unexpected key {key!r} in the state of a DeltaAnchor.")
            if not isinstance(tensor, Tensor) or tensor.dtype not in files.FLOATS:
                raise ForgetlessError(f"the anchor's state has no tensor of real numbers as {key!r}.")
            if not bool(torch.isfinite(tensor).all()):
                raise ForgetlessError(f"the anchor's state has NaN or Inf in {key!r}.")
            if kind == "dial" and tensor.numel() != 1:
                raise ForgetlessError(f"the anchor's state has {tensor.numel()} numbers as its {key!r}, not one.")
            if kind == "importance" and bool((tensor < 0).any()):
                raise ForgetlessError(f"the anchor's state has a negative importance in {key!r}.")
            if key != "strength":
                parts[kind][name] = tensor
        kept: dict[str, dict[str, Tensor]] = {}
        for kind in _KEPT:
            for name, tensor in parts[kind].items():
                kept.setdefault(name, {})[kind] = tensor
        for name, each in kept.items():
            if name not in parts["importance"] or not {"left", "right"} <= each.keys():
                raise ForgetlessError(f"the anchor's state is incomplete for {name!r}.")
        dial = {name: checked(float(number), f"dial's {name!r}") for name, number in parts["dial"].items()}
        return cls(checked(float(strength)), parts["importance"], kept, parts["ordinary"], dial)
