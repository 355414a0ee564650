"""Maximally Interfered Retrieval: replay the samples whose loss the coming update would raise most.

Aljundi, Belilovsky, Tuytelaars, Charlin, Caccia, Lin, Page-Caccia, "Online Continual Learning with Maximally Interfered
Retrieval", NeurIPS 2019, arXiv 1908.04742.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from forgetless.errors import ForgetlessError
from forgetless.learn.families.memory import Remembered, mean_loss
from forgetless.learn.streaming.learner import Replaying
from forgetless.learn.streaming.passes import statistics_kept


@dataclass
class MIR(Replaying):
    """ER on the k of C candidates with the greatest `loss(θ − η g) − loss(θ)`, g the gradient on the stream's batch.

    The virtual step has no momentum, as in the paper. It costs a forward and a backward pass of the batch and two
    forward passes of the candidates more, and a copy of the parameters.

    Attributes:
        candidates: C, in multiples of the samples that are replayed; 5 as in the paper (50 for 10).
    """

    name: ClassVar[str] = "mir"
    candidates: int = 5

    def __post_init__(self) -> None:
        if self.candidates < 1:
            raise ForgetlessError(f"candidates must be at least 1, not {self.candidates!r}.")

    def _drawn(self, part: Remembered) -> list[Remembered]:
        count = self._budget.replay
        chosen = torch.randperm(len(self._buffer))[: self.candidates * count]
        if len(chosen) <= count:
            return self._buffer.take(chosen)
        chosen = chosen[self._buffer.owners[chosen].argsort(stable=True)]  # in the order in which parts come
        candidates = self._buffer.take(chosen)
        with statistics_kept(self._model):
            before = self._losses(candidates)
            loss = mean_loss(self.passes.recall(self._model, [part]))
            gradients = self.passes.gradients(loss, self._weights, [part])
            after = self._after(candidates, gradients)
        return self._buffer.take(chosen[(after - before).topk(count).indices.cpu()])

    @torch.no_grad()
    def _after(self, candidates: list[Remembered], gradients: tuple[Tensor | None, ...]) -> Tensor:
        """The losses after a step; the weights are put back."""
        rate = float(self._optimizer.param_groups[0]["lr"])
        kept = [weights.clone() for weights in self._weights]
        for weights, gradient in zip(self._weights, gradients, strict=True):
            if gradient is not None:
                weights.sub_(rate * gradient)
        found = self._losses(candidates)
        for weights, before in zip(self._weights, kept, strict=True):
            weights.copy_(before)
        return found

    @torch.no_grad()
    def _losses(self, parts: list[Remembered]) -> Tensor:
        return torch.cat([losses for _, losses in self.passes.recall(self._model, parts)])
