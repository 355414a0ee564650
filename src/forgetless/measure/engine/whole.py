"""`Whole`: the passes of a process that holds all weights."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from forgetless.errors import ForgetlessError
from forgetless.measure.engine.copies import Copies
from forgetless.measure.engine.passes import accumulate, batched_sums, single_sums
from forgetless.measure.engine.plan import Plan, agreement, plan
from forgetless.measure.engine.proof import Proof
from forgetless.measure.engine.refusals import coupling, overflow, said, unfit
from forgetless.measure.engine.target import Quantity, Target
from forgetless.model import batches
from forgetless.model.network import Network
from forgetless.model.parameters import listing

_ACTIVATIONS, _ACTIVATIONS_ELSEWHERE = 300 << 20, 2 << 30  # bytes that a batch of ours may hold: on a CPU, elsewhere
_LARGEST = 512  # samples; beyond that a batch gains little and holds more
_LARGEST_COMPARED = 64  # samples, where batches are compared: a standard error needs a number of them


class Whole:
    """How the batches of one process are measured, and what was learned of the network on the first of them.

    Args:
        network: the model.
        parameters: its measured parameters, as operations meet them.
        quantity: what is summed.
        planned: False measures every sample on its own.
        warns: whether this process tells the user what is slow.
        prove: whether samples are measured alone as well now and then (`proof`).
        memory: the most bytes that a batch of ours may hold; None for a default.
    """

    def __init__(
        self,
        network: Network,
        parameters: Mapping[str, Tensor],
        quantity: Quantity,
        *,
        planned: bool = True,
        warns: bool = True,
        prove: bool = True,
        memory: int | None = None,
    ) -> None:
        self.copies = Copies(quantity.scalars) if quantity.several else None
        scalars = quantity.scalars if self.copies is None else self.copies.scalar
        self.target = Target(network.module, parameters, scalars, quantity.power)
        self.plan: Plan | None = None
        self.at = (0, 0)
        self._planned, self._warns, self._memory = planned, warns, memory
        self._proof = Proof() if prove else None
        self._measured = 0  # samples, in batches
        self._plans: dict[Any, Plan] = {}  # by the form of the batches
        self._form: Any = None  # of the present batch

    def prepare(self, batch: Any) -> int:
        """Plan on the first two samples of the first batch of every form."""
        if batch is None:
            return 1
        scalars, pair = (1, batch) if self.copies is None else self.copies.look(self.target.module, batch)
        self._form = batches.form(batch)
        if self._planned and batches.size(pair) > 1 and self._form not in self._plans:
            self._plans[self._form] = self._tried(pair)
            self._warn(self._plans[self._form])
        # A batch of one is measured alone, planned or not: how a pass was begun must not change its bits.
        self.plan = self._plans.get(self._form) if batches.size(pair) > 1 else None
        return scalars

    def _tried(self, pair: Any) -> Plan:
        try:
            return plan(self.target, pair)
        except (ForgetlessError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            two = batches.rows(pair, 0, 2)
            if why := unfit(self.target, two, error, pair):
                raise ForgetlessError(why) from error
            single_sums(self.target, two)  # what cannot do this either cannot be measured
            reason = f"a batch of them cannot be followed: {said(error)}"
            return Plan(self.target.only(()), self.target, dict.fromkeys(self.target.parameters, reason))

    def rows(self, rows: int, compared: bool) -> int:
        """As many as fit the memory, in equal pieces: a short last one would cost as a whole one."""
        if self.plan is None:
            return 1
        on_cpu = all(parameter.is_cpu for parameter in self.target.parameters.values())
        bytes_held = self._memory or (_ACTIVATIONS if on_cpu else _ACTIVATIONS_ELSEWHERE)
        fitting = int(bytes_held / max(1.0, self.plan.sample_bytes))
        largest = _LARGEST_COMPARED if compared else _LARGEST
        return math.ceil(rows / max(1, math.ceil(rows / max(1, min(largest, fitting))))) or 1

    def pieces(self, part: Any, scalars: int, rows: int, count: int) -> Iterator[Any]:
        """The part itself, or its rows where a sample has several scalars."""
        if part is None:
            return iter(())
        return iter([part]) if self.copies is None else self.copies.pieces(part, scalars, rows)

    def measure(self, piece: Any, size: int, found: dict[str, Tensor]) -> None:
        """In batches where the plan says so, one sample at a time where not."""
        if self.plan is None:  # a batch of one, before any two samples were seen: exact as it is
            self._alone(self.target, piece, found)
            return
        if self.plan.batched.parameters and not self._together(self.plan, piece, found):
            return self.measure(piece, size, found)  # by another plan
        if self.plan.single.parameters:
            self._alone(self.plan.single, piece, found)
        return None

    def _together(self, decided: Plan, piece: Any, found: dict[str, Tensor]) -> bool:
        """Add the sums of what is measured in batches; False, and another plan, where that turns out not to hold."""
        chosen = None if self._proof is None else self._proof.chosen(batches.size(piece))
        # A copy to return to. The sums themselves are added to as ever: when there is time for a proof depends on the
        # machine, and the last bits of the numbers must not.
        start = time.perf_counter()
        before = {} if chosen is None else {name: total.clone() for name, total in found.items()}
        copied = time.perf_counter()
        _, values, tape = batched_sums(decided.batched, piece, found, chosen)
        if self._proof is not None:
            self._proof.took(time.perf_counter() - copied - tape.sketching, copied - start + tape.sketching)
        if any(name in decided.batched.parameters for name in tape.unruled):
            self._demote(tape.unruled)
            return False
        self._refuse_non_finite(values, piece)
        if chosen is None or self._proof is None:
            self._measured += len(values)
            return True
        value = values[chosen : chosen + 1]
        wrong, coupled = self._proof.disagreeing(decided.batched, piece, chosen, tape.sketches, value)
        if coupled:
            raise ForgetlessError(coupling(self.target, piece, agreement(self.target, values)))
        if wrong:
            found.clear()
            found.update(before)
            self._demote(dict.fromkeys(wrong, "a sample of a later batch came out differently alone"))
            if self._measured and self._warns:
                warnings.warn(
                    f"before that, {self._measured} samples were measured in batches and may be wrong for these "
                    "parameters; begin the measurement again with batch_size=1 to be sure.",
                    stacklevel=6,
                )
            return False
        self._measured += len(values)
        return True

    def _alone(self, target: Target, piece: Any, found: dict[str, Tensor]) -> None:
        sums, values = single_sums(target, piece)
        self._refuse_non_finite(values, piece)
        accumulate(found, sums)

    def rooted(self, found: dict[str, Tensor]) -> dict[str, Tensor]:
        """In place."""
        return {name: total.sqrt_() for name, total in found.items()}

    def _refuse_non_finite(self, values: Tensor, piece: Any) -> None:
        if not bool(torch.isfinite(values).all()):
            raise ForgetlessError(overflow(self.target, piece, values, self.at))

    def _demote(self, unruled: dict[str, str]) -> None:
        """A later batch took another path than the first two samples did: measure what it lost one by one."""
        assert self.plan is not None
        self.plan = self._plans[self._form] = self.plan.demoted(self.target, unruled)
        self._warn(self.plan)

    def _warn(self, found: Plan) -> None:
        single = found.single.parameters
        if not single or not self._warns:
            return
        together, alone = found.sample_seconds
        reasons = "; ".join(sorted(set(found.why.values())))
        all_of_them = len(single) == len(self.target.parameters)
        advice = (
            "Batches of one sample (batch_size=1) give the same without this warning; fewer samples take less time."
            if all_of_them
            else "Fewer samples take less time; until=0.05 finds out how many will do."
        )
        warnings.warn(
            f"{len(single)} of {len(self.target.parameters)} parameters are measured one sample at a time: "
            f"{listing(single)} ({reasons}). The numbers are exact, but a sample costs about "
            f"{1000 * (together + alone):.3g} ms instead of {1000 * together:.3g} ms. {advice}",
            stacklevel=6,
        )
