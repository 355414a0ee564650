"""Whether a network's importance is exact, parameter by parameter: by which path, how far off, at what cost."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from forgetless.errors import ForgetlessError
from forgetless.measure.engine.plan import plan
from forgetless.measure.engine.tape import Tape
from forgetless.measure.engine.target import Target
from forgetless.measure.estimators.mas import mas
from forgetless.measure.importance import Importance
from forgetless.measure.verify.kinks import on_a_kink, without
from forgetless.model import batches, documents
from forgetless.model.network import Network
from forgetless.model.outputs import Forward, Output, Select
from forgetless.model.restored import in_float64, only, untouched

Reference = Callable[..., Importance]


@dataclass(frozen=True)
class Row:
    """What was found of one parameter.

    Attributes:
        name: the parameter.
        path: "batch", "one sample at a time" or "takes no part".
        by: the operations whose rules serve it, or why none does.
        float64: how far Ω is from one-at-a-time passes, of the parameter's largest, computed in float64.
        own: the same in the model's own dtype, where no sample sits on a kink; `None` where all do.
        milliseconds: for the per-sample sums of one sample, beside the pass itself; `None` one sample at a time.
    """

    name: str
    path: str
    by: str
    float64: float
    own: float | None
    milliseconds: float | None


@dataclass(frozen=True)
class Verification:
    """What was found of a network.

    Attributes:
        rows: a parameter each.
        samples: how many were measured.
        kinked: which of them sit on a kink in the model's own dtype, so that they are compared in float64 alone.
        dtype: the model's own.
        milliseconds: of one sample: "plain" forward and backward pass, "importance", "one at a time".
    """

    rows: tuple[Row, ...]
    samples: int
    kinked: tuple[int, ...]
    dtype: torch.dtype
    milliseconds: dict[str, float]


def verify(
    model: nn.Module,
    batch: Any,
    reference: Reference,
    *,
    output: Select = None,
    forward: Forward | None = None,
    exclude: str | Iterable[str] = (),
) -> Verification:
    """Measure a batch by `forgetless.mas` and by a reference implementation, and compare.

    Args:
        model: any module; left unchanged.
        batch: at least two samples.
        reference: `forgetless.reference.mas`, or another that takes the same.
        output: as for `forgetless.mas`.
        forward: as for `forgetless.mas`.
        exclude: as for `forgetless.mas`.

    Raises:
        ForgetlessError: fewer than two samples, a network that insists on its own dtype, and all that
            `forgetless.mas` refuses.
    """
    network, options = Network.of(model, exclude), {"output": output, "forward": forward, "exclude": exclude}
    model, parameters = network.module, network.parameters
    batch = next((piece for piece, _ in documents.unpacked(batch, full=0)), batch)
    if batches.size(batch) < 2:
        raise ForgetlessError("verifying needs at least two samples, for one is exact whatever the rules are.")
    found, expected = _pair(model, batch, reference, options)
    with in_float64(model) as widened:
        try:
            exact = _pair(model, batches.mapped(batch, widened), reference, options)
        except ForgetlessError as error:
            if not isinstance(error.__cause__, RuntimeError):
                raise
            raise ForgetlessError(f"{type(model).__name__} cannot compute in float64: {error.__cause__}.") from error
    function = Output(output, forward)
    dtype = next(iter(parameters.values())).dtype
    with untouched(model):
        kinked = on_a_kink(lambda piece: function.tensors(model, piece), batch)
        decided = plan(Target(model, parameters, function.squared_norms), batch)
        timed = _Timed(decided.batched.parameters, batch, 1, lambda name, total: None)
        for _ in range(3):
            _pass(model, decided.batched.parameters, function, batch, timed)
        plain = min(_pass(model, parameters, function, batch, None) for _ in range(3))
    if kinked and len(kinked) < batches.size(batch):
        found, expected = _pair(model, without(batch, kinked), reference, options)
    own: dict[str, float] = {} if len(kinked) == batches.size(batch) else _errors(found, expected)
    wide, samples = _errors(*exact), batches.size(batch)
    rows = []
    for name in parameters:
        alone = name in decided.why
        path = "takes no part" if name in found.unused else "one sample at a time" if alone else "batch"
        by = decided.why[name] if alone else ", ".join(sorted(timed.operations.get(name, ())))
        cost = None if alone else 1000 * timed.seconds.get(name, 0.0) / samples
        rows.append(Row(name, path, by, wide[name], own.get(name), cost))
    milliseconds = {
        "plain": 1000 * plain / samples,
        "importance": 1000 * min(_seconds(lambda: _quiet(model, batch, options)) for _ in range(2)) / samples,
        "one at a time": 1000 * _seconds(lambda: _quiet(model, batch, {**options, "batch_size": 1})) / samples,
    }
    return Verification(tuple(rows), samples, tuple(kinked), dtype, milliseconds)


class _Timed(Tape):
    """A tape that notes how long each parameter's sums take at the least, and which operations met it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.seconds: dict[str, float] = {}
        self.operations: dict[str, set[str]] = {}

    def _meet(self, func: Callable[..., Any], found: Any, args: Any, kwargs: Any) -> Any:
        before = len(self.met)
        result = super()._meet(func, found, args, kwargs)
        for names in self.met[before:]:
            for name in names:  # an operation said in terms of others is met by these first
                self.operations.setdefault(name, set()).add(getattr(func, "__name__", str(func)))
        return result

    def _settle(self, name: str, root: Tensor) -> None:
        start = time.perf_counter()
        super()._settle(name, root)
        self.seconds[name] = min(self.seconds.get(name, math.inf), time.perf_counter() - start)


def _pass(model: nn.Module, parameters: Any, function: Output, batch: Any, tape: Tape | None) -> float:
    """Seconds of one forward and backward pass, under a tape or plain."""

    def run() -> None:
        values = function.squared_norms(model, batch)
        if tape is not None:
            tape.end(values)
        if values.requires_grad:
            values.sum().backward()  # type: ignore[no-untyped-call]

    with only(list(parameters.values()), model):
        start = time.perf_counter()
        if tape is None:
            run()
        else:
            with tape:
                run()
        end = time.perf_counter()
    for parameter in parameters.values():
        parameter.grad = None
    return end - start


def _seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _quiet(model: nn.Module, batch: Any, options: dict[str, Any]) -> Importance:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return mas(model, batch, progress=False, **options)


def _pair(model: nn.Module, batch: Any, reference: Reference, options: dict[str, Any]) -> tuple[Importance, Importance]:
    """As measured, and by the reference implementation."""
    found = _quiet(model, batch, options)
    with untouched(model):
        return found, reference(model, batch, **options)


def _errors(found: Importance, expected: Importance) -> dict[str, float]:
    """The largest difference by parameter, of its largest; where that is 0 or rounding, of the network's largest."""
    largest = max(float(total.max()) for total in expected.sums.values())
    errors = {}
    for name, total in expected.sums.items():
        own = float(total.max())
        scale = largest if own == 0 else max(own, 1e-6 * largest)
        errors[name] = float((found.sums[name] - total).abs().max()) / scale if scale else 0.0
    return errors
