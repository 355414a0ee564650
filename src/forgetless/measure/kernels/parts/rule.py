"""What a rule is: how one torch operation leaves per-sample gradients of its parameters.

A rule looks at one call of its operation. If the call is one it knows (the sample axis where it can be, no training
mode, …) it returns a `Call`; if not, `None`, and the parameters of that call are measured one sample at a time.
A rewrite is the other way to serve an operation: it says the same in terms of operations that have rules.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from forgetless.measure.kernels.parts.terms import Term


@dataclass(frozen=True)
class Samples:
    """Where the N samples are in an operation's input.

    Attributes:
        count: N.
        axis: the axis that holds them (batch-second attention and RNNs: 1).
        inner: where the axis is folded, N·k long, whether the sample index runs fastest (k·N) or slowest (N·k).
        of: the sample of each row along the axis, `[R]`, where samples have different numbers of rows, or come in
            another order; None where each has as many, in order. A rule need not know: what its terms are given has
            been `padded`.
    """

    count: int
    axis: int = 0
    inner: bool = False
    of: Tensor | None = None

    def fit(self, values: Tensor) -> bool:
        """Whether the axis is there and holds the samples."""
        if values.dim() <= self.axis:
            return False
        rows = values.shape[self.axis]
        return (self.of is not None and rows == len(self.of)) or rows % self.count == 0

    def order(self, rows: int) -> Tensor:
        """The sample of each of so many rows, `[R]`."""
        if self.of is not None:
            return self.of
        numbers = torch.arange(self.count)
        return numbers.repeat(rows // self.count) if self.inner else numbers.repeat_interleave(rows // self.count)

    def padded(self, values: Tensor, fill: float | None = None) -> Tensor:
        """`values` with as many rows for every sample, in the samples' order: rows that are missing are `fill`.

        Without `fill` they repeat the first row: for inputs, where any row will do that gets no gradient.
        """
        assert self.of is not None
        of = self.of.to(values.device)
        counts = torch.bincount(of, minlength=self.count)
        most = max(1, int(counts.max()))
        fill = 0 if fill is None and not len(of) else fill
        order = torch.argsort(of, stable=True)
        place = torch.arange(len(of), device=of.device) - (counts.cumsum(0) - counts)[of[order]]
        missing = 0 if fill is None else len(of)
        take = torch.full((self.count * most,), missing, device=of.device)
        take[of[order] * most + place] = order
        if fill is not None:
            row = values.new_full([1 if axis == self.axis else n for axis, n in enumerate(values.shape)], fill)
            values = torch.cat([values, row], self.axis)
        return values.index_select(self.axis, take)

    def lead(self, values: Tensor) -> bool:
        """Whether samples are the first axis, perhaps folded with positions inside."""
        return self.axis == 0 and not self.inner and self.fit(values)

    def rows(self, values: Tensor, kept: int) -> Tensor:
        """`values` as `[N, T, *its last `kept` axes]`, T being all positions of a sample."""
        values = values.movedim(self.axis, 0) if self.axis else values
        if self.inner:
            values = values.reshape(-1, self.count, *values.shape[1:]).transpose(0, 1)
        return values.reshape(self.count, -1, *values.shape[values.dim() - kept :])


@dataclass(frozen=True)
class Call:
    """One call of an operation, taken apart.

    Attributes:
        input: the activations x.
        parameters: weight, bias, …; `None` where the call has none.
        forward: (x, *parameters) → the operation's output.
        input_gradient: (d, x, *parameters) → ∂/∂x, d being the gradient of the output.
        terms: one per parameter, (d, x) → its `Term`.
    """

    input: Tensor
    parameters: tuple[Tensor | None, ...]
    forward: Callable[..., Tensor]
    input_gradient: Callable[..., Tensor | None]
    terms: tuple[Callable[[Tensor, Tensor], Term], ...]


Rule = Callable[..., Call | None]  # (samples, *the operation's own arguments) → Call | None
Rewrite = Callable[..., Any]  # (the operation's own arguments) → its result, or NotImplemented
Operation = Callable[..., Any]


def of_samples(value: Any) -> bool:
    """Whether a tensor was computed from the batch; what was computed from parameters and constants alone was not."""
    return bool(getattr(value, "_of_samples", False))


def mark_of_samples(value: Tensor) -> None:
    """Say that `value` was computed from the batch."""
    value._of_samples = True  # type: ignore[attr-defined]
