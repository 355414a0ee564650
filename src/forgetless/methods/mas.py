"""Memory Aware Synapses (Aljundi et al., ECCV 2018, arXiv 1711.09601)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor
from torch.optim import Optimizer

from forgetless.heads import MultiHead
from forgetless.train import Task

if TYPE_CHECKING:
    from forgetless.anchor import Anchor


@dataclass
class MAS:
    """Hold what matters to the output: `Σ λ Ω (θ − θ*)²`, Ω measured on each task's inputs without labels.

    Attributes:
        strength: λ; the paper's 1, untuned.
    """

    name: ClassVar[str] = "mas"
    strength: float = 1.0
    _anchor: Anchor | None = field(default=None, init=False, repr=False)

    def begin(self, model: MultiHead, task: Task, optimizer: Optimizer) -> None:
        """Attach the anchor: every step is pulled towards θ*, by Ω."""
        from forgetless.anchor import Anchor

        if self._anchor is None:
            self._anchor = Anchor(model, None, self.strength)
        self._anchor.attach(optimizer)

    def penalty(self, inputs: Tensor, labels: Tensor, logits: Tensor) -> Tensor | None:
        """Nothing is added to the loss: the pull acts after the step."""
        return None

    def end(self, model: MultiHead, task: Task) -> None:
        """Measure Ω through the task's head on its training inputs, add it, and move θ* to now."""
        from forgetless.measure.mas import mas

        assert self._anchor is not None
        self._anchor.detach()
        importance = mas(
            model,
            task.train[0],
            exclude="heads",
            forward=lambda model, inputs: model(inputs, task.name),
            progress=False,
        )
        self._anchor.consolidate(importance)

    def state(self) -> dict[str, Tensor]:
        """θ* and Ω."""
        raise NotImplementedError

    def load_state(self, model: MultiHead, tensors: dict[str, Tensor]) -> None:
        """Take θ* and Ω back."""
        raise NotImplementedError
