"""Memory Aware Synapses: hold every weight as firmly as it matters to what the network computes.

Aljundi, Babiloni, Elhoseiny, Rohrbach, Tuytelaars, "Memory Aware Synapses: Learning what (not) to forget",
ECCV 2018, arXiv 1711.09601.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor
from torch.optim import Optimizer

from forgetless.anchor import Anchor
from forgetless.heads import MultiHead
from forgetless.measure.mas import mas
from forgetless.task import Task


@dataclass
class MAS:
    """Learn a task with `λ Σ Ω (θ − θ*)²` (Eq. 3), then add its `Ω = 1/N Σ_n |∂‖F(x_n)‖²/∂θ|` (Eq. 2).

    Ω is measured on the task's training inputs without their labels, through its own head, and summed over
    tasks (the paper's first protocol, "accumulate"). Heads are not protected: an old one is not trained any more.

    What differs from the authors' code: the modulus is taken per sample, whatever the batch size, as Eq. 2 says,
    and the optimiser's step is followed by the penalty's closed-form pull, which a large λ cannot make diverge.

    Attributes:
        strength: λ. 1 is the paper's in all its object recognition experiments, where it was not tuned.
    """

    name: ClassVar[str] = "mas"
    strength: float = 1.0
    _anchor: Anchor | None = field(default=None, init=False, repr=False)

    def begin(self, model: MultiHead, task: Task, optimizer: Optimizer) -> None:
        """Attach: from now on every step is pulled towards θ*, by Ω."""
        self._anchored(model).attach(optimizer)

    def penalty(self, inputs: Tensor, labels: Tensor, logits: Tensor) -> Tensor | None:
        """Nothing is added to the loss: the pull follows the step."""
        return None

    def end(self, model: MultiHead, task: Task) -> None:
        """Measure the task's Ω, add it, and move θ* to the weights of now."""
        anchor = self._anchored(model)
        anchor.detach()
        importance = mas(
            model,
            task.train[0],
            forward=lambda network, inputs: network(inputs, task.name),
            exclude="heads",
            progress=False,
        )
        anchor.consolidate(importance)

    def state(self) -> dict[str, Tensor]:
        """θ* and Ω."""
        return {} if self._anchor is None else self._anchor.state_dict()

    def load_state(self, model: MultiHead, tensors: dict[str, Tensor]) -> None:
        """Take θ* and Ω back."""
        if tensors:
            self._anchored(model).load_state_dict(tensors)

    def _anchored(self, model: MultiHead) -> Anchor:
        if self._anchor is None:
            self._anchor = Anchor(model, None, self.strength)
        return self._anchor
