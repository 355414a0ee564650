"""The check of the first two samples: which parameter may take the fast path, and what is refused.

Two samples go through the network once as a batch, under the `Tape`, and once one at a time. A parameter whose numbers
agree is measured in batches; one that disagrees (its sample axis is missing, folded or second) or that some operation
without a rule consumes is measured one sample at a time. A network whose output for a sample depends on the sample's
neighbors has no per-sample gradient: it is refused, by the name of the module that couples them.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from forgetless.errors import ForgetlessError
from forgetless.measure.engine.distance import distance
from forgetless.measure.engine.refusals import Scalars, coupling
from forgetless.measure.engine.tape import Axis, Tape
from forgetless.measure.kernels.parts.terms import modulus_
from forgetless.model import batches
from forgetless.model.restored import in_float64, only

_AGREE = {torch.float64: 1e-8, torch.float32: 1e-3}  # of the parameter's largest; a kink may flip in float32
_AGREE_HALF = 5e-2
_ROUNDING = torch.finfo(torch.float64).eps ** 2


@dataclass(frozen=True)
class Plan:
    """How each parameter is measured.

    Attributes:
        batched: measured in batches, by name.
        single: measured one sample at a time, by name.
        why: name → why it is in `single`.
        axes: name → where its samples are, for the `Tape`.
        sample_bytes: memory that the backward pass of one sample holds on to.
        sample_seconds: seconds of one sample (in a batch of two, one at a time).
    """

    batched: Mapping[str, Tensor]
    single: Mapping[str, Tensor]
    why: dict[str, str]
    axes: dict[str, Axis] = field(default_factory=dict)
    sample_bytes: float = 0.0
    sample_seconds: tuple[float, float] = (0.0, 0.0)


def batched_sums(
    model: nn.Module,
    parameters: Mapping[str, Tensor],
    batch: Any,
    scalars: Scalars,
    power: int,
    axes: Mapping[str, Axis] | None = None,
    into: dict[str, Tensor] | None = None,
) -> tuple[dict[str, Tensor], Tensor, Tape]:
    """`Σ_n |∂s_n/∂θ|^power` of a batch in one backward pass: sums by name (only of what took part), s, and the tape.

    The sums are added to `into` in place, where given: float32 or wider, and with no copy of the parameters' size. It
    stays as it is where an operation without a rule was met, or a scalar is NaN or Inf.
    """
    sums: dict[str, Tensor] = {} if into is None else into

    def deposit(name: str, total: Tensor) -> None:
        sums[name] = total if total is sums.get(name) else _own(total)

    tape = Tape(parameters, batch, power, deposit, axes, into)
    return sums, _taped(tape, model, parameters, batch, scalars, strict=into is not None), tape


def _taped(
    tape: Tape, model: nn.Module, parameters: Mapping[str, Tensor], batch: Any, scalars: Scalars, strict: bool
) -> Tensor:
    """One pass under the tape; backward too, or with `strict` only where all is well."""
    with only(list(parameters.values()), model), _unhooked(parameters), contextlib.closing(tape), tape:
        values = scalars(model, batch)
        well = not strict or (not tape.unruled and bool(torch.isfinite(values).all()))
        if values.requires_grad and well:
            values.sum().backward()  # type: ignore[no-untyped-call]
    for parameter in parameters.values():
        parameter.grad = None  # what an operation without a rule has left
    return values.detach()


def _own(total: Tensor) -> Tensor:
    """A sum that may be added to: dense, float32 or wider."""
    total = total.detach().to(torch.float64 if total.dtype == torch.float64 else torch.float32)
    channels_last = total.dim() == 4 and total.is_contiguous(memory_format=torch.channels_last)
    return total if channels_last else total.contiguous()


def single_sums(
    model: nn.Module, parameters: Mapping[str, Tensor], batch: Any, scalars: Scalars, power: int
) -> tuple[dict[str, Tensor], Tensor]:
    """The same, one sample at a time: exact for every network."""
    sums: dict[str, Tensor] = {}
    values = []

    def add(name: str, gradient: Tensor) -> None:
        moduli = modulus_(gradient.to_dense() if gradient.is_sparse else gradient, power)
        sums[name] = sums[name].add_(moduli) if name in sums else moduli

    with only(list(parameters.values()), model), _unhooked(parameters), _taking(parameters, add) as taken:
        for n in range(batches.size(batch)):
            value = scalars(model, batches.rows(batch, n, n + 1))
            values.append(value.detach())
            if value.requires_grad and taken:
                value.sum().backward()  # type: ignore[no-untyped-call]
            elif value.requires_grad:
                gradients = torch.autograd.grad(value.sum(), list(parameters.values()), allow_unused=True)
                for name, gradient in zip(parameters, gradients, strict=True):
                    if gradient is not None:
                        add(name, gradient.clone())  # it may be another parameter's too
    return sums, torch.cat(values)


@contextlib.contextmanager
def _unhooked(parameters: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, nothing that waits for the gradients of the parameters is called, such as an optimizer in a hook."""
    found = [getattr(parameter, "_post_accumulate_grad_hooks", None) for parameter in parameters.values()]
    waiting = [(hooks, dict(hooks)) for hooks in found if hooks]
    try:
        for hooks, _ in waiting:
            hooks.clear()
        yield
    finally:
        for hooks, before in waiting:
            hooks.update(before)


@contextlib.contextmanager
def _taking(parameters: Mapping[str, Tensor], add: Callable[[str, Tensor], None]) -> Iterator[bool]:
    """Inside, a backward pass gives every gradient away as soon as it is there, so that they are never all in memory.

    Yields whether that can be: not where DDP or FSDP wait for the gradients.
    """
    if not all(parameter.is_leaf for parameter in parameters.values()) or _several_processes():
        yield False
        return

    def take(name: str, parameter: Tensor) -> None:
        gradient, parameter.grad = parameter.grad, None
        if gradient is not None:
            add(name, gradient)

    handles = [
        parameter.register_post_accumulate_grad_hook(functools.partial(take, name))  # type: ignore[no-untyped-call]
        for name, parameter in parameters.items()
    ]
    try:
        yield True
    finally:
        for handle in handles:
            handle.remove()


def _several_processes() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def plan(model: nn.Module, parameters: Mapping[str, Tensor], batch: Any, scalars: Scalars, power: int) -> Plan:
    """Try two samples both ways and decide.

    Args:
        model: in eval mode.
        parameters: what is to be measured, by name.
        batch: at least two samples; the first two are used.
        scalars: (model, batch) → `[N]`, the scalar of each sample whose gradient is measured.
        power: makes no difference; what is compared are squares.

    Raises:
        ForgetlessError: the samples of a batch influence each other.
    """
    power = 2  # |a + b| = |a| + |b| where signs agree, so moduli cannot tell which rows are one sample's; squares can
    pair = batches.rows(batch, 0, 2)
    axes = _axes(model, parameters, pair, scalars)
    held = _Held(parameters)
    start = time.perf_counter()
    slow, apart = single_sums(model, parameters, pair, scalars, power)
    middle = time.perf_counter()
    largest = max((float(total.max()) for total in slow.values()), default=0.0)
    differs = {name: _differs(None, slow.get(name), largest) for name in parameters}

    def compare(name: str, total: Tensor) -> None:  # as it comes, so that not all sums are in memory twice
        differs[name] = _differs(total, slow.get(name), largest)

    tape = Tape(parameters, pair, power, compare, axes)
    with torch.autograd.graph.saved_tensors_hooks(held.count, lambda saved: saved):
        together = _taped(tape, model, parameters, pair, scalars, strict=False)
    end = time.perf_counter()
    tolerance = _AGREE.get(together.dtype, _AGREE_HALF)
    if distance(together, apart) > tolerance:
        raise ForgetlessError(coupling(model, pair, scalars, tolerance))
    why = {name: f"no rule for {operation}" for name, operation in tape.unruled.items()}
    doubtful = [name for name in parameters if name not in why and differs[name]]
    if doubtful:
        why |= _disagreements(model, {n: parameters[n] for n in doubtful}, pair, scalars, power, axes, largest)
    return Plan(
        batched={name: value for name, value in parameters.items() if name not in why},
        single={name: value for name, value in parameters.items() if name in why},
        why=why,
        axes=axes,
        sample_bytes=held.bytes / 2,
        sample_seconds=((end - middle) / 2, (middle - start) / 2),
    )


def _axes(model: nn.Module, parameters: Mapping[str, Tensor], pair: Any, scalars: Scalars) -> dict[str, Axis]:
    """Where each parameter meets the samples: the axis of its operation's input that two samples make twice as long."""
    shapes = []
    for batch in (pair, batches.rows(pair, 0, 1)):
        tape = Tape(parameters, batch, 1, lambda name, total: None)
        with only(list(parameters.values()), model), contextlib.closing(tape), tape:
            scalars(model, batch)
        shapes.append(tape.met)
    axes: dict[str, Axis] = {}
    for (names, two), (_, one) in zip(*shapes, strict=False):
        longer = [axis for axis, (n2, n1) in enumerate(zip(two, one, strict=False)) if n2 != n1]
        if len(longer) == 1:
            axes.update(dict.fromkeys(names, (longer[0], False)))
    return axes


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
    return distance(found, expected) > _AGREE.get(found.dtype, _AGREE_HALF)


def _disagreements(
    model: nn.Module,
    doubtful: dict[str, Tensor],
    pair: Any,
    scalars: Scalars,
    power: int,
    axes: dict[str, Axis],
    largest: float,
) -> dict[str, str]:
    """Which of the doubtful parameters are really measured wrongly in a batch. Folded axes are tried both ways.

    In float32 an activation next to a kink may fall on its other side in a batch, which changes a gradient by itself.
    In float64 it does not, so what still disagrees there has no rule that holds.
    """
    try:
        with in_float64(model) as widened:
            wide = batches.mapped(pair, widened)
            slow, _ = single_sums(model, doubtful, wide, scalars, power)
            for inner in (False, True):
                tried = {name: (axes.get(name, (0, False))[0], inner) for name in doubtful}
                fast, _, _ = batched_sums(model, doubtful, wide, scalars, power, {**axes, **tried})
                agreed = [name for name in doubtful if not _differs(fast.get(name), slow.get(name), largest)]
                axes.update({name: tried[name] for name in agreed})
                doubtful = {name: value for name, value in doubtful.items() if name not in agreed}
                if not doubtful:
                    break
    except RuntimeError:  # a network that insists on its own dtype: the safe path
        return dict.fromkeys(doubtful, "its batch and its samples disagree")
    return dict.fromkeys(doubtful, "its samples cannot be told apart in a batch")
