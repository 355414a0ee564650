"""The check of the first two samples: which parameter may take the fast path, and what is refused.

Two samples go through the network once as a batch, under the `Tape`, and once one at a time. A parameter whose numbers
agree is measured in batches; one that disagrees, or that some operation without a rule consumes, is measured one sample
at a time. A network whose output for a sample depends on the sample's neighbors has no per-sample gradient: it is
refused, by the name of the module that couples them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from forgetless.errors import ForgetlessError
from forgetless.measure.engine.distance import distance
from forgetless.measure.engine.passes import batched_sums, single_sums, taped
from forgetless.measure.engine.refusals import coupling
from forgetless.measure.engine.tape import Tape
from forgetless.measure.engine.target import Target
from forgetless.model import batches
from forgetless.model.restored import in_float64

AGREE = {torch.float64: 1e-8, torch.float32: 1e-3}  # of the parameter's largest; a kink may flip in float32
AGREE_HALF = 5e-2
_ROUNDING = torch.finfo(torch.float64).eps ** 2


@dataclass(frozen=True)
class Plan:
    """How each parameter is measured.

    Attributes:
        batched: what is measured in batches.
        single: what is measured one sample at a time.
        why: name → why it is in `single`.
        sample_bytes: memory that the backward pass of one sample holds on to.
        sample_seconds: seconds of one sample (in a batch of two, one at a time).
    """

    batched: Target
    single: Target
    why: dict[str, str]
    sample_bytes: float = 0.0
    sample_seconds: tuple[float, float] = (0.0, 0.0)

    def demoted(self, target: Target, why: Mapping[str, str]) -> Plan:
        """The same, but for parameters of `target` that are measured one sample at a time from now on, and why."""
        why = {**self.why, **why}
        batched = target.only(name for name in self.batched.parameters if name not in why)
        return replace(self, batched=batched, single=target.only(why), why=why)


def plan(target: Target, batch: Any) -> Plan:
    """Try two samples both ways and decide.

    What is compared are squares: `|a + b| = |a| + |b|` where signs agree, so moduli cannot tell which rows are one
    sample's.

    Args:
        target: what is to be measured; its power makes no difference.
        batch: at least two samples; the first two are used.

    Raises:
        ForgetlessError: the samples of a batch influence each other.
    """
    why = {name: "no rule for complex numbers" for name, p in target.parameters.items() if p.is_complex()}
    squares = replace(target.only(name for name in target.parameters if name not in why), power=2)
    pair = batches.mapped(batches.rows(batch, 0, 2), Tensor.clone)  # on which a model that writes to it is found
    held = _Held(squares.parameters)
    with torch.no_grad():  # what the model cannot do with a batch is said of a batch
        squares.values(pair)
    start = time.perf_counter()
    with torch.autograd.graph.saved_tensors_hooks(held.count, lambda saved: saved):
        slow, apart = single_sums(squares, pair)
    middle = time.perf_counter()
    largest = max((float(total.max()) for total in slow.values() if total.numel()), default=0.0)
    differs = {name: _differs(None, slow.get(name), largest) for name in squares.parameters}

    def compare(name: str, total: Tensor) -> None:  # as it comes, so that not all sums are in memory twice
        differs[name] = _differs(total, slow.get(name), largest)

    tape = Tape(squares.parameters, pair, 2, compare)
    together = taped(tape, squares, pair, strict=False)
    end = time.perf_counter()
    tolerance = agreement(target, together)
    if distance(together, apart) > tolerance and (together.dtype == torch.float64 or coupled(squares, pair)):
        raise ForgetlessError(coupling(squares, pair, tolerance))
    why |= tape.unruled
    doubtful = [name for name in squares.parameters if name not in why and differs[name]]
    if doubtful:
        why |= _disagreements(squares.only(doubtful), pair, largest)
    return Plan(
        batched=target.only(name for name in target.parameters if name not in why),
        single=target.only(why),
        why=why,
        sample_bytes=held.bytes / 2,
        sample_seconds=((end - middle) / 2, (middle - start) / 2),
    )


def agreement(target: Target, values: Tensor) -> float:
    """How far scalars of a batch may be from those of its samples alone, of the largest: what rounding explains.

    Squared norms are float32 whatever the network computes in, so the narrowest of its weights and autocast count.
    """
    parameters = list(target.module.parameters())
    narrow = any(each.is_floating_point() and each.element_size() < 4 for each in parameters)
    cast = any(torch.is_autocast_enabled(kind) for kind in {each.device.type for each in parameters})
    return AGREE_HALF if narrow or cast else AGREE.get(values.dtype, AGREE_HALF)


def coupled(target: Target, batch: Any, n: int = 0) -> bool:
    """Whether the scalar of sample n is another in the batch than alone also in float64, where that is no rounding."""
    try:
        with in_float64(target.module) as widened, torch.no_grad():
            wide = batches.mapped(batch, widened)
            together, apart = target.values(wide), target.values(batches.rows(wide, n, n + 1))
    except RuntimeError:  # a network that insists on its own dtype
        return True
    return distance(together[n : n + 1], apart) > AGREE[torch.float32]


class _Held:
    """Counts the bytes that autograd keeps for the backward pass, parameters aside."""

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        self.bytes = 0
        self._seen = {parameter.data_ptr() for parameter in parameters.values()}

    def count(self, tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in self._seen:
            self._seen.add(tensor.data_ptr())
            self.bytes += tensor.numel() * tensor.element_size()
        return tensor


def _differs(found: Tensor | None, expected: Tensor | None, largest: float) -> bool:
    """Whether squares differ by more than rounding; `largest` is the largest of the whole network.

    What mathematics says is 0 (the gradient of a bias of attention keys) is nothing but rounding: in float64, squares
    below ε² of the largest are not compared.
    """
    if found is None or expected is None:
        other = found if expected is None else expected
        return other is not None and bool((other != 0).any())
    if found.dtype == torch.float64 and max(float(found.max()), float(expected.max())) < _ROUNDING * largest:
        return False
    return distance(found, expected) > AGREE.get(found.dtype, AGREE_HALF)


def _disagreements(target: Target, pair: Any, largest: float) -> dict[str, str]:
    """Which of the doubtful parameters are really measured wrongly in a batch.

    In float32 an activation next to a kink may fall on its other side in a batch, which changes a gradient by itself.
    In float64 it does not, so what still disagrees there has no rule that holds.
    """
    try:
        with in_float64(target.module) as widened:
            wide = batches.mapped(pair, widened)
            slow, _ = single_sums(target, wide)
            fast, _, _ = batched_sums(target, wide)
    except RuntimeError:  # a network that insists on its own dtype: the safe path
        return dict.fromkeys(target.parameters, "its batch and its samples disagree")
    wrong = [name for name in target.parameters if _differs(fast.get(name), slow.get(name), largest)]
    return dict.fromkeys(wrong, "its samples cannot be told apart in a batch")
