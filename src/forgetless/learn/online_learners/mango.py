"""MANGO: gradients gated by the weights' own size, and an L2-SP coefficient per group of layers that adapts.

Awasthi, Roy, Apolinario, "MANGO: Meta-Adaptive Network Gradient Optimization for Online Continual Learning", 2026,
arXiv 2605.19080, as printed; the authors have published no code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from forgetless.errors import ForgetlessError
from forgetless.learn.network import Network
from forgetless.learn.streaming.budget import Budget
from forgetless.learn.streaming.gated import Gated
from forgetless.learn.streaming.groups import layers_of
from forgetless.learn.task import Task

GATES = ("signed", "magnitude", "half", "none")


@dataclass
class Mango(Gated):
    """`gate_j = σ(θ_j / std(θ_l))` (Eq. 3), l the layer of j, and the penalty `Σ_i λ_i/2 ‖θ_i − θ_old,i‖²` (Eq. 1).

    A layer is a module with parameters of its own, weights and biases together: the scales and shifts of a norm layer
    alone have no spread at the start. The standard deviation is the population's; where it is 0, gates are ½.

    Where the paper can be read in several ways, the defaults are:

    - the gate has the sign of θ, as Eq. 3 is printed, though the text calls it a magnitude; |θ| would let large weights
      move more than small ones, the opposite of protection;
    - five groups, the number in the table of learned coefficients and its figure; an appendix says six;
    - replayed samples are in the loss, as in the figure of the method and its replay batch of 64; the algorithm's line
      for the loss has the stream's batch alone.

    Attributes:
        gate: "signed"; "magnitude", `σ(|θ_j| / std(θ_l))`; for comparison "half", ½ for all, and "none".
    """

    name: ClassVar[str] = "mango"
    gate: str = "signed"
    _scales: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)
    _layers: list[list[str]] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gate not in GATES:
            raise ForgetlessError(f"gate must be one of {', '.join(map(repr, GATES))}, not {self.gate!r}.")

    def begin(self, model: Network, tasks: Sequence[Task], optimizer: Optimizer, budget: Budget) -> None:
        """Begin with every λ at its start; see `Gated.begin`."""
        super().begin(model, tasks, optimizer, budget)
        self._layers = layers_of(model)

    @torch.no_grad()
    def _prepare(self) -> None:
        """`1 / std` of every layer, 0 where that is 0."""
        if self.gate in ("half", "none"):
            return
        weights = dict(self._named)
        for names in self._layers:
            own = [weights[name].flatten() for name in names]
            std, mean = torch.std_mean(own[0] if len(own) == 1 else torch.cat(own), correction=0)
            spread = std > 8 * torch.finfo(std.dtype).eps * mean.abs()  # more than rounding
            self._scales |= dict.fromkeys(names, torch.where(spread, std.reciprocal(), 0.0))

    def _gate(self, name: str, weights: Tensor) -> Tensor | float:
        if self.gate in ("half", "none"):
            return 0.5 if self.gate == "half" else 1.0
        scaled = weights * self._scales[name]
        return torch.sigmoid_(scaled.abs_() if self.gate == "magnitude" else scaled)
