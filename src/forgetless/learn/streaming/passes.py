"""Passes through the network, counted; and passes that leave its batch-norm statistics alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from forgetless.learn.families.memory import Remembered, recall
from forgetless.learn.network import Network


@dataclass
class Passes:
    """How many samples went forward and backward through the network: what a learner costs, on any machine."""

    forward: int = 0
    backward: int = 0

    def recall(self, model: Network, parts: list[Remembered]) -> list[tuple[Tensor, Tensor]]:
        """Outputs `[n, …]` and losses `[n]` of each part, from one forward pass of all."""
        self.forward += sum(map(len, parts))
        return recall(model, parts)

    def backpropagate(self, loss: Tensor, parts: list[Remembered]) -> None:
        """A backward pass into the gradients of the parameters."""
        self.backward += sum(map(len, parts))
        torch.autograd.backward(loss)

    def gradients(
        self, loss: Tensor, weights: list[nn.Parameter], parts: list[Remembered]
    ) -> tuple[Tensor | None, ...]:
        """A backward pass that gives the gradients, and leaves those of the parameters alone."""
        self.backward += sum(map(len, parts))
        return torch.autograd.grad(loss, weights, allow_unused=True)


@contextlib.contextmanager
def statistics_kept(model: nn.Module) -> Iterator[None]:
    """In training mode, batch norm goes on using the batch's statistics, and its running ones stay as they are."""
    tracking = [each for each in model.modules() if isinstance(each, _BatchNorm) and each.track_running_stats]
    try:
        for each in tracking:
            each.track_running_stats = False
        yield
    finally:
        for each in tracking:
            each.track_running_stats = True
