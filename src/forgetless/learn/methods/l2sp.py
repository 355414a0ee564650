"""L2-SP: hold all weights equally to where the task started.

Li, Grandvalet, Davoine, "Explicit Inductive Bias for Transfer Learning with Convolutional Networks", ICML 2018,
arXiv 1802.01483. Hsu et al. 2018 call it L2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.optim import Optimizer

from forgetless.learn.families.anchored import Anchored, uniform
from forgetless.learn.method import Strength
from forgetless.learn.network import Network
from forgetless.learn.task import Task


@dataclass
class L2SP(Anchored):
    """Ω = 1: `λ Σ (θ − θ⁰)²` over what tasks share, θ⁰ the weights at the start of the task.

    The baseline for every measured importance. Differences from the paper: it writes `α/2 Σ (θ − θ⁰)²`, so that
    `λ = α/2`, and decays the new head as well; here weight decay is the recipe's. A pretrained backbone is anchored
    from the first task on, one from scratch from the second.

    Attributes:
        strength: λ; not tuned. The paper searches α between 0.001 and 1 for each dataset.
        new_rows: whether the rows that a head grows for the task's classes are held to their first values as well, as
            in the code of Hsu et al.: where λ is large, new classes are then hardly learned.
    """

    name: ClassVar[str] = "l2sp"
    strength: Strength = 0.01
    new_rows: bool = False

    def begin(self, model: Network, task: Task, optimizer: Optimizer) -> None:
        """Anchor a trained backbone to the current weights, and attach."""
        importance = uniform(model, task, self.name, new_rows=self.new_rows) if model.is_trained else None
        self.renew(model, importance)
        super().begin(model, task, optimizer)

    def end(self, model: Network, task: Task) -> None:
        """Detach; the next task has a start of its own."""
        self.anchor(model).detach()
