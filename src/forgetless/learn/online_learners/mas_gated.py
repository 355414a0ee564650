"""Gates and weights by Memory Aware Synapses in the place of MANGO's: ours, not the paper's."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from forgetless.errors import ForgetlessError
from forgetless.learn.families.state import on_device_of
from forgetless.learn.streaming.gated import Gated
from forgetless.learn.streaming.importance import importance_of
from forgetless.learn.task import Task


@dataclass
class MASGated(Gated):
    """`gate_j = 1 / (1 + κ Ω_j / mean Ω)` and the penalty `Σ_i λ_i/2 Σ_{j∈i} Ω_j / mean Ω (θ_j − θ_old,j)²`.

    Ω is measured at the end of each task on the buffer, exactly and without labels; its mean is over all parameters. In
    the first task every gate is 1. The meta step is `mango`'s. Memory: θ_old and Ω.

    Attributes:
        kappa: κ ≥ 0.
    """

    name: ClassVar[str] = "mas-gated"
    kappa: float = 1.0
    _ratios: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (math.isfinite(self.kappa) and self.kappa >= 0):
            raise ForgetlessError(f"kappa must be a finite number of 0 or more, not {self.kappa!r}.")

    def border(self, task: Task, batches: int) -> None:
        """Measure Ω on the buffer; the gates follow it from now on."""
        found = importance_of(self._model, self._buffer.all(), self.passes)
        mean = sum(float(each.sum(dtype=torch.float64)) for each in found.sums.values())
        mean /= sum(each.numel() for each in found.sums.values())
        self._ratios = {
            name: (found.sums[name] / mean if mean else torch.zeros_like(found.sums[name])).to(weights.dtype)
            for name, weights in self._named
        }
        super().border(task, batches)

    def tree(self) -> dict[str, Any]:
        """What the meta step keeps, and Ω."""
        return {**super().tree(), "ratios": self._ratios}

    def load(self, tree: dict[str, Any]) -> None:
        """Take them back."""
        super().load(tree)
        self._ratios = on_device_of(self._model, tree.get("ratios", {}))

    def _gate(self, name: str, weights: Tensor) -> Tensor | float:
        return 1 / (1 + self.kappa * self._ratios[name]) if self._ratios else 1.0

    def _weigh(self, name: str, distance: Tensor) -> Tensor:
        return distance.mul_(self._ratios[name])
