"""Dark Experience Replay++ on a stream: the buffer keeps the outputs of the moment at which a sample came.

Buzzega, Boschini, Porrello, Abati, Calderara, "Dark Experience for General Continual Learning: a Strong, Simple
Baseline", NeurIPS 2020, arXiv 2004.07211.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from forgetless.learn.families.memory import Remembered, distance_from, mean_loss
from forgetless.learn.streaming.learner import Replaying


@dataclass
class DERPlusPlus(Replaying):
    """`loss(stream) + α ‖z − z*‖²/C + β loss`, the two latter on two batches from the buffer.

    z* are the outputs in the last update in which the sample was part of the stream, before the step.

    Attributes:
        alpha: α; .2 and β .5 are what MANGO's tables use.
        beta: β.
    """

    name: ClassVar[str] = "der++"
    alpha: float = 0.2
    beta: float = 0.5
    _outputs: Tensor | None = field(default=None, init=False, repr=False)

    def glance(self, part: Remembered, batch: int, last: bool) -> float:
        """One update on the batch, and on two batches from the buffer."""
        dark, plain = self._drawn(part), self._drawn(part)
        parts = [part, *dark, *plain]
        recalled = self.passes.recall(self._model, parts)
        self._outputs = recalled[0][0].detach()
        loss = mean_loss(recalled[:1])
        if dark:
            first, second = recalled[1 : 1 + len(dark)], recalled[1 + len(dark) :]
            # Heads may differ in their number of classes; the buffer keeps as many outputs as the widest has.
            cut = [
                replace(each, outputs=None if each.outputs is None else each.outputs[..., : now.shape[-1]])
                for each, (now, _) in zip(dark, first, strict=True)
            ]
            loss = loss + self.alpha * distance_from(first, cut) + self.beta * mean_loss(second)
        return self._update(loss, parts)

    def keep(self, part: Remembered) -> None:
        """Offer the batch to the buffer, with its outputs."""
        assert self._outputs is not None
        widest = max(self._model.width(task.name) for task in self._tasks)
        padded = F.pad(self._outputs, (0, widest - self._outputs.shape[-1]))
        self._buffer.add(replace(part, outputs=padded))
