"""The control for gates: experience replay with every gradient times a constant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from forgetless.learn.streaming.learner import Replaying


@dataclass
class ERHalf(Replaying):
    """ER whose gradients are multiplied by ½ before the step, which is ER at half the learning rate.

    A gate `σ(θ/std)` is ½ on average over a symmetric layer. What a gated learner gains over ER and this one gains too
    is the gain of a smaller learning rate.

    Attributes:
        gate: the constant.
    """

    name: ClassVar[str] = "er-half"
    gate: float = 0.5

    @torch.no_grad()
    def _shape(self) -> None:
        for weights in self._weights:
            if weights.grad is not None:
                weights.grad.mul_(self.gate)
