"""Averaged Gradient Episodic Memory on a stream: no step along which the loss on the buffer would rise.

Chaudhry, Ranzato, Rohrbach, Elhoseiny, "Efficient Lifelong Learning with A-GEM", ICLR 2019, arXiv 1812.00420.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from forgetless.learn.families.memory import Remembered, mean_loss
from forgetless.learn.families.projection import away_from
from forgetless.learn.streaming.learner import Replaying
from forgetless.learn.streaming.passes import statistics_kept


@dataclass
class AGEM(Replaying):
    """`g ← g − (gᵀr / rᵀr) r` where `gᵀr < 0`: g the stream's gradient, r that of the loss on samples of the buffer.

    The replayed samples themselves are not learned. Momentum may still raise the old loss, as in the paper.
    """

    name: ClassVar[str] = "a-gem"
    _reference: tuple[Tensor | None, ...] = field(default=(), init=False, repr=False)

    def glance(self, part: Remembered, batch: int, last: bool) -> float:
        """One update on the batch alone."""
        self._reference = ()
        if len(self._buffer):
            drawn = self._drawn(part)
            with statistics_kept(self._model):
                loss = mean_loss(self.passes.recall(self._model, drawn))
                self._reference = self.passes.gradients(loss, self._weights, drawn)
        recalled = self.passes.recall(self._model, [part])
        return self._update(mean_loss(recalled), [part])

    def _shape(self) -> None:
        if self._reference:
            away_from(self._weights, self._reference)
