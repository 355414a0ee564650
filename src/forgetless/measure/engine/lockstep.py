"""`Lockstep`: the passes of processes that hold shards of the weights (FSDP2). Every pass is made by all of them.

They plan on the same two samples, and agree before each step how many passes it takes and between forward and backward
whether all are well (`forgetless.model.ranks`). One whose samples have run out runs a spare one at weight zero.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from forgetless.errors import ForgetlessError
from forgetless.measure.engine.passes import accumulate, single_sums, wide
from forgetless.measure.engine.plan import Plan, plan
from forgetless.measure.engine.refusals import overflow
from forgetless.measure.engine.tape import Tape
from forgetless.measure.engine.target import Quantity
from forgetless.measure.engine.whole import Whole
from forgetless.model import batches
from forgetless.model.network import Network
from forgetless.model.ranks import Ranks
from forgetless.model.restored import only


class Lockstep(Whole):
    """As `Whole`, in step with the other processes.

    Args:
        network: the sharded model.
        ranks: the processes.
        parameters: its measured parameters, as gathered from all shards.
        quantity: what is summed.
        planned: False measures every sample on its own.
    """

    def __init__(
        self,
        network: Network,
        ranks: Ranks,
        parameters: Mapping[str, Tensor],
        quantity: Quantity,
        *,
        planned: bool = True,
    ) -> None:
        super().__init__(network, parameters, quantity, planned=planned, warns=ranks.rank == 0, prove=False)
        self.ranks, self.root = ranks, quantity.root
        self.device = next(iter(parameters.values())).device
        self.spare: Any = None  # a batch of one that a rank runs, at weight zero, when it has none of its own

    def prepare(self, batch: Any) -> int:
        """Plan on the same samples on every rank: the first two of a rank that has two."""
        if self.spare is None or (self.plan is None and self._planned):
            self._plan_together(batch)
        if self.copies is None:
            return 1
        with self.ranks.passing():
            scalars, _ = self.copies.look(self.target.module, self.spare if batch is None else batch)
        return scalars

    def _plan_together(self, batch: Any) -> None:
        offered = None if batch is None else batches.rows(batch, 0, 2)
        sizes = self.ranks.agree(0 if offered is None else batches.size(offered))[:, 0]
        if not int(sizes.max()):
            return
        chosen = self.ranks.broadcast(offered, int(sizes.argmax()))
        pair = batches.mapped(chosen, lambda tensor: tensor.detach().to(self.device, non_blocking=True))
        with self.ranks.passing():
            rows = pair if self.copies is None else self.copies.look(self.target.module, pair)[1]
            if batches.size(rows) > 1 and self._planned:
                self.plan = plan(self.target, rows)
        self.spare = batches.rows(pair, 0, 1)
        if self.plan is not None:
            self.plan = self._same(self.plan)
            self._warn(self.plan)

    def _same(self, found: Plan) -> Plan:
        """What one rank measures one sample at a time all do; the samples are the same, their rounding may not be."""
        why = {name: reason for told in self.ranks.gathered(found.why) for name, reason in told.items()}
        return found.demoted(self.target, why)

    def pieces(self, part: Any, scalars: int, rows: int, count: int) -> Iterator[Any]:
        """What this rank measures in each pass; None where it has nothing."""
        own = super().pieces(part, scalars, rows, count)
        for _ in range(count):
            yield next(own, None)

    def measure(self, piece: Any, size: int, found: dict[str, Tensor]) -> None:
        """One piece on every rank; what is found is sharded, or this rank's own where a root is still to be taken."""
        if self.plan is not None and self.plan.batched.parameters:
            sums = self._batched(self.plan, piece)
            if sums is None:
                return self.measure(piece, size, found)
            accumulate(found, sums)
        single = self.target.parameters if self.plan is None else self.plan.single.parameters
        if single:
            accumulate(found, self._one_by_one(set(single), piece, size))
        return None

    def rooted(self, found: dict[str, Tensor]) -> dict[str, Tensor]:
        """In place, and spread."""
        return self._spread({name: total.sqrt_() for name, total in found.items()})

    def _rows(self, piece: Any) -> Any:
        """The piece, or the spare batch in the form that the scalars take."""
        if piece is not None:
            return piece
        if self.copies is None:
            return self.spare
        return {"samples": self.spare, "which": torch.zeros(1, dtype=torch.int64, device=self.device)}

    def _batched(self, decided: Plan, piece: Any) -> dict[str, Tensor] | None:
        """The sums of all ranks' pieces in one backward pass; None if that cannot be, and another plan was made."""
        batch, mine = self._rows(piece), piece is not None
        sums: dict[str, Tensor] = {}
        held: dict[str, Tensor] = {}
        aligned = False

        def deposit(name: str, total: Tensor) -> None:
            total = total.detach().to(wide(total)) if mine else torch.zeros_like(total, dtype=wide(total))
            if aligned:
                sums[name] = self.ranks.spread(name, total)
            elif mine:
                held[name] = total

        parameters = decided.batched.parameters
        tape = Tape(parameters, batch, self.target.power, deposit)

        def lost() -> int:
            return sum(name in parameters for name in tape.unruled)

        with (
            self.ranks.passing(),
            only(list(parameters.values()), self.target.module),
            contextlib.closing(tape),
            tape,
        ):
            values = self.target.values(batch)
            tape.end(values)
            if values.requires_grad:
                tape.unruled = {**tape.escaped(values), **tape.unruled}
            order = zlib.crc32("\n".join(tape.order()).encode())
            table = self.ranks.agree(lost(), order, _bad(values), values.requires_grad)
            missing, orders, bad, required = table.unbind(1)
            if bool(bad.any()):
                self._overflowed(batch, bool(_bad(values)))
            if not bool(missing.any()) and bool((required != required[0]).any()):
                raise ForgetlessError(
                    "the output that is measured depends on the parameters for the samples of some ranks and not for "
                    "those of others, so they cannot go through the sharded model in lockstep."
                )
            # Uses in one order on all ranks: every sum is spread as soon as it is there, and its memory is freed.
            aligned = not self.root and bool((orders == order).all())
            if not bool(missing.any()) and bool(required.any()):
                values.sum().backward()  # type: ignore[no-untyped-call]
        for parameter in parameters.values():
            parameter.grad = None
        if bool(self.ranks.agree(lost()).any()):
            told = self.ranks.gathered(tape.unruled)
            self._demote({name: operation for each in told for name, operation in each.items()})
            return None
        if self.root:
            return held
        return sums if aligned else self._spread(held)

    def _one_by_one(self, single: set[str], piece: Any, size: int) -> dict[str, Tensor]:
        batch = self._rows(piece)
        samples = batches.size(batch)
        held: dict[str, Tensor] = {}
        bad = 0
        for n in range(size):
            mine = piece is not None and n < samples
            row = batches.rows(batch, n, n + 1) if mine else batches.rows(batch, 0, 1)
            with self.ranks.passing():  # through all parameters: the same layers are gathered whatever a sample uses
                sums, values = single_sums(self.target, row)
            if mine:
                bad |= _bad(values)
                accumulate(held, {name: total for name, total in sums.items() if name in single})
        if bool(self.ranks.agree(bad).any()):
            self._overflowed(batch, bool(bad))
        return held if self.root else self._spread(held)

    def _spread(self, held: dict[str, Tensor]) -> dict[str, Tensor]:
        """The sum of what the ranks hold, one parameter after the other."""
        used = set().union(*self.ranks.gathered(set(held)))
        return {
            name: self.ranks.spread(name, held.pop(name) if name in held else _nothing(parameter))
            for name, parameter in self.target.parameters.items()
            if name in used
        }

    def _overflowed(self, batch: Any, here: bool) -> None:
        """Look for the module where it happened, on every rank: that is a pass too."""
        said = overflow(self.target, batch, at=self.at)
        if here:
            raise ForgetlessError(said)
        self.ranks.agree()


def _nothing(parameter: Tensor) -> Tensor:
    return torch.zeros(parameter.shape, dtype=wide(parameter), device=parameter.device)


def _bad(values: Tensor) -> int:
    return int(not bool(torch.isfinite(values).all()))
