"""`Sweep`: `Σ_n |∂s_n/∂θ|^power` of every parameter over all batches that it is given, exact for any network.

What every estimator shares. A sweep cuts batches into pieces that fit the memory, adds up in float32 or wider, and asks
now and then whether that is enough. It is the same loop for one process and for several: how a piece is measured is the
matter of its `Passes` (`whole` where a process has all weights, `lockstep` where they are sharded), and what processes
tell each other that of its group (`group`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from forgetless.errors import ForgetlessError
from forgetless.measure.confidence import Confidence
from forgetless.measure.engine import refusals
from forgetless.measure.engine.group import Alone, Group
from forgetless.measure.engine.passes import accumulate, wide
from forgetless.measure.engine.target import Quantity, Target
from forgetless.model import batches

_FIRST_LOOK, _LOOK_AGAIN = 8, 1.25  # batches before `until` is asked first, and how many times that before the next


@dataclass(frozen=True)
class Sums:
    """What a sweep found.

    Attributes:
        sums: name → `Σ_n |g_n|^power`, float32 or wider, on the parameter's device.
        count: how many samples.
        unused: names of the parameters that took no part.
        confidence: how the batches differed, where `until` asked for it.
    """

    sums: dict[str, Tensor]
    count: int
    unused: tuple[str, ...]
    confidence: Confidence | None = None


@runtime_checkable
class Passes(Protocol):
    """How a piece of a batch is measured. Of several processes all make the same calls; None stands for no samples."""

    target: Target
    at: tuple[int, int]  # the batch that is measured, and the first sample of the part: for messages

    def prepare(self, batch: Any) -> int:
        """Plan, where that is still to be done; gives how many scalars a sample of this batch has."""

    def rows(self, rows: int, compared: bool) -> int:
        """How many of so many rows to take at a time; fewer where batches are to be `compared` with each other."""

    def pieces(self, part: Any, scalars: int, rows: int, count: int) -> Iterator[Any]:
        """The rows of `part`, at most about `rows` at a time; of several processes `count` pieces on each."""

    def measure(self, piece: Any, size: int, found: dict[str, Tensor]) -> None:
        """Add a piece's sums to `found`; of several processes each has `size` rows at the most."""

    def rooted(self, found: dict[str, Tensor]) -> dict[str, Tensor]:
        """The square roots of one sample's sums."""


class Sweep:
    """The sums so far.

    Args:
        passes: how a batch is measured.
        quantity: what is summed.
        group: the processes that measure together.
        batch_size: samples at a time; None for what fits the memory.
        until: asked now and then about the sums so far; `enough` when it says yes.

    Attributes:
        enough: whether `until` has said yes.
        count: how many samples this process has measured.
    """

    def __init__(
        self,
        passes: Passes,
        quantity: Quantity,
        group: Group | None = None,
        *,
        batch_size: int | None = None,
        until: Callable[[Sums], bool] | None = None,
    ) -> None:
        if batch_size is not None and (type(batch_size) is not int or batch_size < 1):
            raise ForgetlessError(f"batch_size must be a whole number of 1 or more, not {batch_size!r}.")
        self.passes, self.quantity, self.group = passes, quantity, group or Alone()
        self.batch_size, self.until = batch_size, until
        self.confidence = None if until is None else Confidence()
        self.sums: dict[str, Tensor] = {}
        self.count = self.batch = 0
        self.enough = False
        self._rowed: dict[Any, tuple[bool, ...]] = {}  # a form of batches → which of its tensors have a row per sample
        self._joined: tuple[dict[str, Tensor], int] = {}, 0  # the sums and samples of what is added together
        self._taken, self._look_at = 0, _FIRST_LOOK  # parts that were taken together, and when to ask `until`

    def add(self, batch: Any, together: bool = False) -> int:
        """Add a batch, or nothing while other processes add theirs; gives how many samples were measured here.

        What is added `together` is one batch, which `close` ends, to whatever compares batches.
        """
        before = self.count
        own = None if batch is None else self.admitted(batch)
        samples = 0 if own is None else batches.size(own)
        if not self.group.anyone(samples):
            return 0
        scalars = self.passes.prepare(own)
        rows = self._rows(samples * scalars) if samples else 1
        span = 1 if self.quantity.root else max(1, rows // scalars)
        mine, at_once = math.ceil(samples / span), max(1, min(scalars, rows // max(1, min(span, samples))))
        parts, pieces, size = self.group.most(mine, math.ceil(scalars / at_once), min(span, samples) * at_once)
        for index in range(parts):
            part = batches.rows(own, index * span, min((index + 1) * span, samples)) if index < mine else None
            self.passes.at = (self.batch, index * span)
            self._take(part, scalars, rows, pieces, size, together)
            if self.enough:
                break
        self.batch += batch is not None
        return self.count - before

    def close(self) -> None:
        """End what was added together, on all processes at once."""
        if self.confidence is not None:
            self._compare(*self._joined)
        self._joined = {}, 0

    def restore(self, sums: Mapping[str, Tensor], count: int) -> None:
        """Take these sums over so many samples for the ones so far."""
        parameters = self.passes.target.parameters
        self.sums = {name: total.to(parameters[name].device, copy=True) for name, total in sums.items()}
        self.count = count

    def admitted(self, batch: Any) -> Any:
        """The batch where the model is, None if it is empty."""
        if not batches.size(batch):
            return None
        device = next(iter(self.passes.target.parameters.values())).device
        found = batches.moved(batch, device)
        rows, form = batches.settled(found), batches.form(found)
        if batches.size(found) > 1 and self._rowed.setdefault(form, rows) != rows:
            which = next(
                n for n, (now, before) in enumerate(zip(rows, self._rowed[form], strict=True)) if now != before
            )
            shape = tuple(list(batches.tensors(found))[which].shape)
            raise ForgetlessError(
                f"a tensor of the batch, now of shape {shape} for {batches.size(found)} samples, has as many rows as "
                "there are samples in one batch and not in another, so its rows may be the samples' or not; leave it "
                "out of the batch and give it in forward=."
            )
        return found

    def _rows(self, rows: int) -> int:
        return self.batch_size or self.passes.rows(rows, self.confidence is not None)

    def _take(self, part: Any, scalars: int, rows: int, pieces: int, size: int, together: bool) -> None:
        """Add samples that are taken together, on all processes at once."""
        apart = self.quantity.root or self.confidence is not None
        found: dict[str, Tensor] = {} if apart else self.sums
        for piece in self.passes.pieces(part, scalars, rows, pieces):
            self.passes.measure(piece, size, found)
        samples = 0 if part is None else batches.size(part)
        self.count += samples
        if self.quantity.root:
            found = self.passes.rooted(found)
        if apart:
            accumulate(self.sums, found)
        if self.confidence is None:
            return
        counted = self.group.counted(samples)
        if together:
            joined, before = self._joined
            accumulate(joined, found)
            self._joined = joined, before + counted
        else:
            self._compare(found, counted)

    def _compare(self, found: dict[str, Tensor], count: int) -> None:
        """Take in how a batch differs from the others, and ask now and then whether that is enough."""
        if self.confidence is not None and count:
            self.confidence.add(found, count)
        self._taken += 1
        if self.until is not None and self._taken >= self._look_at:
            self._look_at = math.ceil(_LOOK_AGAIN * self._look_at)
            self.enough = self.group.decided(self.until(self.result()))

    def result(self) -> Sums:
        """The sums so far, over all processes.

        Raises:
            ForgetlessError: no samples, no parameter that takes part, or gradients that overflow.
        """
        parameters = self.passes.target.parameters
        sums, count, confidence = self.group.pooled(parameters, self.sums, self.count, self.confidence)
        if count == 0:
            raise ForgetlessError("the data hold no samples, so there is nothing to measure importance on.")
        unused = tuple(name for name in parameters if name not in sums)
        if len(unused) == len(parameters):
            raise ForgetlessError(
                f"no parameter of {type(self.passes.target.module).__name__} takes part in the output that is "
                "measured: it carries no gradient (was it detached, or computed under no_grad?)."
            )
        whole = {
            name: sums[name] if name in sums else torch.zeros_like(parameter, dtype=wide(parameter))
            for name, parameter in self.group.held(parameters).items()
        }
        for name, total in whole.items():
            if not self.group.finite(total):
                raise ForgetlessError(refusals.gradients(name, parameters[name].dtype))
        return Sums(whole, count, unused, confidence)
