"""One pass over the data by several processes: the same sums as one process would find, made in lockstep.

Every rank sweeps its own samples. Ranks that hold replicas only add up in the end, and when `until` asks. Ranks that
hold shards make every pass together (`forgetless.model.ranks`): they plan on the same two samples, and agree before
each step how many passes it takes and between forward and backward whether all are well.
"""

from __future__ import annotations

import contextlib
import copy
import math
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from forgetless.errors import ForgetlessError
from forgetless.measure.confidence import Confidence
from forgetless.measure.engine.plan import plan, single_sums
from forgetless.measure.engine.refusals import overflow
from forgetless.measure.engine.sweep import (
    _LOOK_AGAIN,
    Quantity,
    Sums,
    _accumulate,
    _refuse_non_finite_weights,
    _Run,
    _shown,
    _wide,
)
from forgetless.measure.engine.tape import Tape
from forgetless.model import batches
from forgetless.model.parameters import unwrapped
from forgetless.model.ranks import Ranks
from forgetless.model.restored import only, untouched
from forgetless.model.sharding import local


def sweep_together(
    ranks: Ranks,
    model: nn.Module,
    dataset: Any,
    quantity: Quantity,
    *,
    until: Callable[[Sums], bool] | None = None,
    exclude: str | Iterable[str] = (),
    batch_size: int | None = None,
    progress: bool = True,
) -> Sums:
    """What `sweep` finds on all ranks' data together; every rank calls it, with its own data, and gets the result.

    Args:
        ranks: the processes.
        model: what they share, with or without DDP around it; left bit for bit as found.
        dataset: this rank's samples, perhaps none; see `forgetless.model.batches`.
        quantity: what is summed.
        until: asked on every rank about the same sums.
        exclude: names, module names or patterns of parameters to leave out.
        batch_size: samples at a time on each rank.
        progress: show a progress bar on the first rank's terminal, of its own samples.

    Raises:
        ForgetlessError: all that `sweep` refuses, on every rank when it happens on one; a rank that has ended.
    """
    model = unwrapped(model)
    with ranks.jointly():
        if batch_size is not None and batch_size < 1:
            raise ForgetlessError(f"batch_size must be at least 1, not {batch_size}.")
        with untouched(model), ranks.following(exclude) as parameters, _shown(progress and ranks.rank == 0) as advance:
            if not parameters:
                raise ForgetlessError(
                    f"{type(model).__name__} has no trainable parameter to measure; "
                    "unfreeze some (requires_grad_(True)) or exclude fewer."
                )
            _refuse_non_finite_weights(model)
            kind = _Shards if ranks.sharded else _Replicas
            run = kind(ranks, parameters, quantity, until, batch_size)
            for batch in ranks.lockstep(batches.of(dataset, batch_size)):
                advance(run.step(batch))
                if run.enough:
                    break
            return run.result()


class _Together(_Run):
    """The state of one rank's part of the pass."""

    def __init__(
        self,
        ranks: Ranks,
        parameters: dict[str, Any],
        quantity: Quantity,
        until: Callable[[Sums], bool] | None,
        batch_size: int | None,
    ) -> None:
        super().__init__(ranks.model, parameters, quantity, None, batch_size)
        self.ranks, self.ask = ranks, until
        self.confidence = None if until is None else Confidence()
        self.groups = 0  # samples that are taken together, on all ranks at once

    def step(self, batch: Any) -> int:
        """Add this rank's batch, if it has one, while the others add theirs; returns how many samples it measured."""
        before = self.count
        own = None if batch is None or not batches.size(batch) else batch
        if own is not None:
            batches.refuse_non_finite(own, f"batch {self.batch}")
            own = batches.mapped(own, self._here)
        samples = 0 if own is None else batches.size(own)
        if not bool(self.ranks.agree(samples).any()):
            return 0
        scalars = self._prepare(own)
        rows = self._step(samples * scalars) if samples else 1
        span = 1 if self.root else max(1, rows // scalars)
        mine = math.ceil(samples / span)
        taken = min(span, samples)
        at_once = min(scalars, max(1, rows // max(1, taken)))  # scalars of each sample in a pass
        table = self.ranks.agree(mine, math.ceil(scalars / at_once), taken * at_once)
        for index in range(int(table[:, 0].max())):
            part = batches.rows(own, index * span, (index + 1) * span) if index < mine else None
            self._group(part, scalars, rows, int(table[:, 1].max()), int(table[:, 2].max()))
            self.groups += 1
            if self.ask is not None and self.groups >= self.next:
                self.next = math.ceil(_LOOK_AGAIN * self.next)
                self.enough = bool(self.ranks.agree(self.ask(self.result()))[0, 0])
            if self.enough:
                break
        self.batch += batch is not None
        return self.count - before

    def _here(self, tensor: Tensor) -> Tensor:
        return tensor.detach().to(self.device, non_blocking=True)

    def _prepare(self, own: Any) -> int:
        """Plan, where that is to be done; returns how many scalars a sample of this batch has."""
        raise NotImplementedError

    def _group(self, part: Any, scalars: int, rows: int, passes: int, size: int) -> None:
        """Add samples that are taken together, if this rank has any; all ranks make so many passes of such a size."""
        raise NotImplementedError

    def _joined(self) -> _Together:
        """A copy of this state that holds all ranks' sums."""
        joined = copy.copy(self)
        joined.count = int(self.ranks.agree(self.count).sum())
        return joined

    def result(self) -> Sums:
        return _Run.result(self._joined())

    def _warn(self, found: Any) -> None:
        if self.ranks.rank == 0:
            super()._warn(found)


class _Replicas(_Together):
    """Ranks that each hold all weights: every one goes its own way."""

    def _prepare(self, own: Any) -> int:
        if own is None:
            return 1
        scalars, pair = (1, own) if self.copies is None else self.copies.look(self.model, own)
        if self.plan is None and batches.size(pair) > 1 and self.batch_size != 1:
            self.plan = plan(self.model, self.parameters, pair, self.scalars, self.power)
            self._warn(self.plan)
        return scalars

    def _group(self, part: Any, scalars: int, rows: int, passes: int, size: int) -> None:
        if part is not None:
            self._add(part, scalars, rows)

    def _joined(self) -> _Together:
        joined = super()._joined()
        used = set().union(*self.ranks.gathered(set(self.sums)))
        joined.sums = {name: self._added(self.sums, name) for name in self.parameters if name in used}
        if self.confidence is not None:
            joined.confidence = self._pooled(self.confidence)
        return joined

    def _added(self, held: dict[str, Tensor], name: str) -> Tensor:
        parameter = self.parameters[name]
        mine = held[name].clone() if name in held else torch.zeros_like(parameter, dtype=_wide(parameter))
        return self.ranks.total(mine.detach())

    def _pooled(self, mine: Confidence) -> Confidence:
        told = self.ranks.gathered((mine.squares, mine.batches, mine.half_count, set(mine.half)))
        pooled = Confidence()
        for squares, count, half_count, _ in told:
            pooled = pooled.merge(Confidence(squares, count, {}, half_count))
        halves = set().union(*(names for *_, names in told))
        pooled.half = {name: self._added(mine.half, name) for name in self.parameters if name in halves}
        return pooled


class _Shards(_Together):
    """Ranks that hold parts of the weights: all passes are made by all."""

    spare: Any = None  # a batch of one that a rank runs, at weight zero, when it has none of its own

    def _prepare(self, own: Any) -> int:
        if self.spare is None or (self.plan is None and self.batch_size != 1):
            self._plan(own)
        if self.copies is None:
            return 1
        with self.ranks.passing():
            scalars, _ = self.copies.look(self.model, self.spare if own is None else own)
        return scalars

    def _plan(self, own: Any) -> None:
        """Plan on the same samples on every rank: the first two of a rank that has two."""
        offered = None if own is None else batches.rows(own, 0, 2)
        sizes = self.ranks.agree(0 if offered is None else batches.size(offered))[:, 0]
        if not int(sizes.max()):
            return
        pair = batches.mapped(self.ranks.broadcast(offered, int(sizes.argmax())), self._here)
        with self.ranks.passing():
            if self.copies is not None:
                _, rows = self.copies.look(self.model, pair)
            else:
                rows = pair
            if batches.size(rows) > 1 and self.batch_size != 1:
                self.plan = plan(self.model, self.parameters, rows, self.scalars, self.power)
        self.spare = batches.rows(pair, 0, 1)
        if self.plan is not None:
            self._same_plan(self.plan.why)
            self._warn(self.plan)

    def _same_plan(self, why: dict[str, str]) -> None:
        """What one rank measures one sample at a time all do; the samples are the same, their rounding may not be."""
        assert self.plan is not None
        why = {name: reason for told in self.ranks.gathered(why) for name, reason in told.items()}
        batched = {name: value for name, value in self.parameters.items() if name not in why}
        single = {name: value for name, value in self.parameters.items() if name in why}
        self.plan = replace(self.plan, batched=batched, single=single, why=why)

    def _group(self, part: Any, scalars: int, rows: int, passes: int, size: int) -> None:
        found: dict[str, Tensor] = {}
        for piece in self._pieces(part, scalars, rows, passes):
            self._together(piece, size, found)
        samples = 0 if part is None else batches.size(part)
        self.count += samples
        if self.root:
            found = self._spread({name: total.sqrt_() for name, total in found.items()} if samples else {})
        if self.confidence is not None:
            self.confidence.add(found, int(self.ranks.agree(samples).sum()))
        _accumulate(self.sums, found)

    def _pieces(self, part: Any, scalars: int, rows: int, passes: int) -> Iterator[Any]:
        """What this rank measures in each pass; None where it has nothing."""
        own = iter(()) if part is None else iter([part])
        if self.copies is not None and part is not None:
            own = self.copies.pieces(part, scalars, rows)
        for _ in range(passes):
            yield next(own, None)

    def _together(self, piece: Any, size: int, found: dict[str, Tensor]) -> None:
        """One piece on every rank; what is found is sharded, or this rank's own where a root is still to be taken."""
        batched = {} if self.plan is None else dict(self.plan.batched)
        if batched:
            sums = self._batched(piece)
            if sums is None:
                return self._together(piece, size, found)
            _accumulate(found, sums)
        single = dict(self.parameters) if self.plan is None else dict(self.plan.single)
        if single:
            _accumulate(found, self._one_by_one(single, piece, size))
        return None

    def _rows(self, piece: Any) -> Any:
        """The piece, or the spare batch in the form that the scalars take."""
        if piece is not None:
            return piece
        if self.copies is None:
            return self.spare
        return {"samples": self.spare, "which": torch.zeros(1, dtype=torch.int64, device=self.device)}

    def _batched(self, piece: Any) -> dict[str, Tensor] | None:
        """The sums of all ranks' pieces in one backward pass; None if that cannot be, and another plan was made."""
        assert self.plan is not None
        batch, mine = self._rows(piece), piece is not None
        sums: dict[str, Tensor] = {}
        held: dict[str, Tensor] = {}
        aligned = False

        def deposit(name: str, total: Tensor) -> None:
            total = total.detach().to(_wide(total)) if mine else torch.zeros_like(total, dtype=_wide(total))
            if aligned:
                sums[name] = self.ranks.spread(name, total)
            elif mine:
                held[name] = total

        tape = Tape(self.plan.batched, batch, self.power, deposit, self.plan.axes)
        with (
            self.ranks.passing(),
            only(list(self.plan.batched.values()), self.model),
            contextlib.closing(tape),
            tape,
        ):
            values = self.scalars(self.model, batch)
            order = zlib.crc32("\n".join(tape._slots).encode())
            table = self.ranks.agree(self._lost(tape), order, _bad(values), values.requires_grad)
            lost, orders, bad, required = table.unbind(1)
            if bool(bad.any()):
                self._overflowed(batch, bool(_bad(values)))
            # Uses in one order on all ranks: every sum is spread as soon as it is there, and its memory is freed.
            if not bool(lost.any()) and bool((required != required[0]).any()):
                raise ForgetlessError(
                    "the output that is measured depends on the parameters for the samples of some ranks and not for "
                    "those of others, so they cannot go through the sharded model in lockstep."
                )
            aligned = not self.root and bool((orders == order).all())
            if not bool(lost.any()) and bool(required.any()):
                values.sum().backward()  # type: ignore[no-untyped-call]
        for parameter in self.plan.batched.values():
            parameter.grad = None
        if bool(self.ranks.agree(self._lost(tape)).any()):
            told = self.ranks.gathered(tape.unruled)
            self._demote({name: operation for each in told for name, operation in each.items()})
            return None
        if self.root:
            return held
        return sums if aligned else self._spread(held)

    def _one_by_one(self, single: dict[str, Any], piece: Any, size: int) -> dict[str, Tensor]:
        batch = self._rows(piece)
        samples = batches.size(batch)
        held: dict[str, Tensor] = {}
        bad = 0
        for n in range(size):
            mine = piece is not None and n < samples
            row = batches.rows(batch, n, n + 1) if mine else batches.rows(batch, 0, 1)
            with self.ranks.passing():  # through all parameters: the same layers are gathered whatever a sample uses
                sums, values = single_sums(self.model, self.parameters, row, self.scalars, self.power)
            if mine:
                bad |= _bad(values)
                _accumulate(held, {name: total for name, total in sums.items() if name in single})
        if bool(self.ranks.agree(bad).any()):
            self._overflowed(batch, bool(bad))
        return held if self.root else self._spread(held)

    def _lost(self, tape: Tape) -> int:
        assert self.plan is not None
        return sum(name in self.plan.batched for name in tape.unruled)

    def _spread(self, held: dict[str, Tensor]) -> dict[str, Tensor]:
        """The sum of what the ranks hold, one parameter after the other."""
        used = set().union(*self.ranks.gathered(set(held)))
        return {
            name: self.ranks.spread(name, held.pop(name) if name in held else self._nothing(parameter))
            for name, parameter in self.parameters.items()
            if name in used
        }

    def _nothing(self, parameter: Tensor) -> Tensor:
        return torch.zeros(parameter.shape, dtype=_wide(parameter), device=parameter.device)

    def _overflowed(self, batch: Any, here: bool) -> None:
        """Look for the module where it happened, on every rank: that is a pass too."""
        said = overflow(self.model, batch, self.scalars)
        if here:
            raise ForgetlessError(said)
        self.ranks.agree()

    def _joined(self) -> _Together:
        joined = super()._joined()
        joined.parameters = self.ranks.shards
        return joined

    def _finite(self, total: Tensor) -> bool:
        return not bool(self.ranks.agree(not super()._finite(local(total))).any())


def _bad(values: Tensor) -> int:
    return int(not bool(torch.isfinite(values).all()))
