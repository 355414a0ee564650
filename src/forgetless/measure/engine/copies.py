"""Several scalars per sample: a row for each of them, so that one backward pass knows the gradient of every one.

Where an estimator asks for K scalars of each of N samples, `(model, batch) → [N, K]`, the batch is written as N·K rows
`(x_n, k)` whose one scalar is the k-th of `x_n`. Rows are then measured as samples are: by the same rules, checked in
the same way, and a few at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from forgetless.model import batches

Rows = dict[str, Any]  # {"samples": a batch whose row r is some x_n, "which": k of row r, [R]}


class Copies:
    """Writes batches as rows.

    Args:
        scalars: (model, batch) → `[N, K]`, the same K for all samples of a batch.
    """

    def __init__(self, scalars: Callable[[nn.Module, Any], Tensor]) -> None:
        self._scalars = scalars

    def scalar(self, model: nn.Module, rows: Rows) -> Tensor:
        """The one scalar of every row, `[R]`."""
        values = self._scalars(model, rows["samples"])
        return values.gather(1, rows["which"].unsqueeze(1)).squeeze(1)

    def look(self, model: nn.Module, batch: Any) -> tuple[int, Rows]:
        """K of this batch, and two rows of it for the check: of two samples, or two scalars of the only one.

        They are of the largest scalars, which are the least likely to have no gradient at all.
        """
        two = batches.rows(batch, 0, 2)
        with torch.no_grad():
            values = self._scalars(model, batches.mapped(two, Tensor.clone)).abs()
        if len(values) > 1:
            return values.shape[1], {"samples": two, "which": values.argmax(1)}
        which = values[0].topk(min(2, values.shape[1])).indices
        return values.shape[1], {"samples": _repeated(two, len(which)), "which": which}

    def pieces(self, batch: Any, count: int, step: int) -> Iterator[Rows]:
        """All rows of the batch, about `step` at a time."""
        samples = batches.size(batch)
        span = max(1, step // samples)
        for start in range(0, count, span):
            which = torch.arange(start, min(start + span, count), device=_device(batch))
            yield {"samples": _repeated(batch, len(which)), "which": which.repeat(samples)}


def _repeated(batch: Any, times: int) -> Any:
    """Every sample `times` times in a row; what has no sample axis stays as it is."""
    samples = batches.size(batch)

    def copies(tensor: Tensor) -> Tensor:
        return tensor.repeat_interleave(times, 0) if batches.rowed(tensor, samples) else tensor

    return batches.mapped(batch, copies)


def _device(batch: Any) -> torch.device:
    return next(batches.tensors(batch)).device
