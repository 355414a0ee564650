"""`Pace`: when to ask a network about its probes, so that asking costs a small share of training."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from forgetless.model import batches
from forgetless.model.parameters import unwrapped

COST = 0.02
_FORWARD = 1 / 3  # of a training step's work is its forward pass
_FEWEST = 16  # samples that are worth a forward pass of their own


class Pace:
    """Counts steps, and says at which ones a piece of the probes is due.

    The rule counts instead of measuring, so that a run repeats itself bit for bit: answering n samples costs a third of
    a training step on n samples, so that every 17 steps the network may be asked about as many samples as it learns
    from in one. What it did cost is measured beside, and changes nothing.

    Attributes:
        rows: samples to ask about at a time; known after the first step.
        every: steps between two askings.
    """

    def __init__(
        self,
        model: nn.Module,
        every: int | None,
        rows: int,
        rounds: int = 1,
        shared: Callable[[tuple[int, int]], tuple[int, int]] = lambda own: own,
    ) -> None:
        """Begin to count.

        Args:
            model: the network that is being trained.
            every: steps between two askings, if that is given and no matter of cost.
            rows: samples to ask about at a time where the first step does not show it.
            rounds: how often each sample is asked about in a round.
            shared: (rows, every) of this process → what all processes that train the model together take.
        """
        self._shared = shared
        self.every, self.rows, self._fixed = every or 1, rows, every is not None
        self._share = _FORWARD / COST * rounds
        self.steps = 0
        self._asking, self._started, self._last = 0.0, 0.0, 0.0
        self._calls: list[tuple[int, int]] = []  # samples and numbers of each forward pass of the first step
        hook = unwrapped(model).register_forward_pre_hook(self._note, with_kwargs=True)
        self._handle: Any = None if self._fixed else hook
        if self._fixed:
            hook.remove()

    def stepped(self) -> bool:
        """Count a step; whether a piece is due after it."""
        self._last = time.perf_counter()
        if self.steps == 0:
            self._started = self._last
        self.steps += 1
        if self._handle is not None:
            self.close()
            self.settle()
        return self.steps % self.every == 0

    def settle(self) -> None:
        """Set the pace by the forward passes of the first step."""
        if self._calls:
            calls, rows = len(self._calls), max(samples for samples, _ in self._calls)
            pieces = math.ceil(_FEWEST / rows)
            self.rows, self.every = rows * pieces, max(1, math.ceil(self._share * pieces / calls))
        else:
            self.every = math.ceil(self._share)
        self.rows, self.every = self._shared((self.rows, self.every))

    def close(self) -> None:
        """Note no more forward passes."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Measure the time spent inside."""
        start = time.perf_counter()
        yield
        self._asking += time.perf_counter() - start
        self._last = time.perf_counter()

    @property
    def cost(self) -> float:
        """The seconds spent asking ÷ all other seconds, from the first step to the last."""
        return self._asking / max(self._last - self._started - self._asking, 1e-9)

    def _note(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not (module.training and torch.is_grad_enabled()):
            return
        given = [
            tensor for tensor in batches.tensors([list(args), kwargs]) if isinstance(tensor, Tensor) and tensor.dim()
        ]
        if given:
            self._calls.append((given[0].shape[0], given[0].numel()))
