"""One pass over the data: `Σ_n |∂s_n/∂θ|^power` for every parameter, exact for any network.

What every estimator in `measure/` shares. It decides how each parameter is measured on the first two samples (`plan`),
chooses a batch size that fits the memory, adds up in float32 or wider and puts the model back as it was.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from forgetless.errors import ForgetlessError
from forgetless.measure.confidence import Confidence
from forgetless.measure.engine.copies import Copies
from forgetless.measure.engine.plan import Plan, batched_sums, plan, single_sums
from forgetless.measure.engine.refusals import Scalars, coupling, overflow, unfit
from forgetless.model import batches
from forgetless.model.parameters import listing, trainable, unwrapped
from forgetless.model.restored import untouched

_ACTIVATIONS = 300 << 20  # bytes of activations that a batch of ours may hold
_LARGEST = 512  # samples; beyond that a batch gains little and holds more
_LARGEST_COMPARED = 64  # samples, where batches are compared: a standard error needs a number of them
_FIRST_LOOK, _LOOK_AGAIN = 8, 1.25  # batches before `until` is asked first, and how many times that before the next


@dataclass(frozen=True)
class Quantity:
    """What is summed over samples: `Σ_n |g_n|^power`, g_n the gradient of sample n's scalar.

    Attributes:
        scalars: (model, batch) → `[N]`, the scalar of each sample whose gradient is measured.
        power: 1 for `|g|`, 2 for `g²`.
        several: the scalars are `[N, K]`, and the powers of each one's gradient add up: `Σ_n Σ_k |g_nk|^power`.
        root: the square root of each sample's sum is added instead: `Σ_n √(Σ_k |g_nk|^power)`.
    """

    scalars: Scalars
    power: int = 1
    several: bool = False
    root: bool = False


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


def sweep(
    model: nn.Module,
    dataset: Any,
    quantity: Quantity,
    *,
    until: Callable[[Sums], bool] | None = None,
    exclude: str | Iterable[str] = (),
    batch_size: int | None = None,
    progress: bool = True,
) -> Sums:
    """Measure every trainable parameter of `model` that is not excluded.

    Args:
        model: any module; left bit for bit as found.
        dataset: see `forgetless.model.batches`.
        quantity: what is summed.
        until: asked now and then about the sums so far; the pass ends when it says yes.
        exclude: names, module names or patterns of parameters to leave out.
        batch_size: samples at a time; by default what fits the memory, and an iterable's own batches as they come.
        progress: show a progress bar on a terminal.

    Raises:
        ForgetlessError: nothing to measure, no data, NaN or Inf anywhere, samples that influence each other.
    """
    if batch_size is not None and batch_size < 1:
        raise ForgetlessError(f"batch_size must be at least 1, not {batch_size}.")
    model = unwrapped(model)
    parameters = trainable(model, exclude)
    if not parameters:
        raise ForgetlessError(
            f"{type(model).__name__} has no trainable parameter to measure; "
            "unfreeze some (requires_grad_(True)) or exclude fewer."
        )
    _refuse_non_finite_weights(model)
    with untouched(model), _shown(progress) as advance:
        run = _Run(model, parameters, quantity, until, batch_size)
        for batch in batches.of(dataset, batch_size):
            advance(run.add(batch))
            if run.enough:
                break
    return run.result()


class _Run:
    """The state of one sweep."""

    def __init__(
        self,
        model: nn.Module,
        parameters: dict[str, nn.Parameter],
        quantity: Quantity,
        until: Callable[[Sums], bool] | None,
        batch_size: int | None,
    ) -> None:
        self.model, self.parameters, self.power, self.root = model, parameters, quantity.power, quantity.root
        self.copies = Copies(quantity.scalars) if quantity.several else None
        self.scalars = quantity.scalars if self.copies is None else self.copies.scalar
        self.until, self.enough, self.next = until, False, _FIRST_LOOK
        self.confidence = None if until is None else Confidence()
        self.batch_size = batch_size
        self.device = next(iter(parameters.values())).device
        self.count = 0
        self.batch = 0
        self.sums: dict[str, Tensor] = {}
        self.plan: Plan | None = None
        self.compared = False

    def add(self, batch: Any) -> int:
        """Add a batch; returns how many of its samples were measured."""
        samples, before = batches.size(batch), self.count
        batches.refuse_non_finite(batch, f"batch {self.batch}")
        batch = batches.mapped(batch, lambda tensor: tensor.detach().to(self.device, non_blocking=True))
        scalars, pair = (1, batch) if self.copies is None or not samples else self.copies.look(self.model, batch)
        if self.plan is None and batches.size(pair) > 1 and self.batch_size != 1:
            self.plan = self._planned(pair)
            self._warn(self.plan)
        rows = self._step(samples * scalars)
        step = 1 if self.root else max(1, rows // scalars)
        for start in range(0, samples, step):
            self._add(batches.rows(batch, start, min(start + step, samples)), scalars, rows)
            if self.enough:
                break
        self.batch += 1
        return self.count - before

    def _planned(self, pair: Any) -> Plan:
        try:
            return plan(self.model, self.parameters, pair, self.scalars, self.power)
        except (ForgetlessError, torch.OutOfMemoryError):
            raise
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            why = unfit(self.model, batches.rows(pair, 0, 2), self.scalars, error)
            if why is None:
                raise
            raise ForgetlessError(why) from error

    def _compare(self, batch: Any, values: Tensor) -> None:
        """Once, for the first samples of a batch that is more than the two which were tried: are they as alone?"""
        if self.compared or len(values) <= 2:
            return
        self.compared = True
        with torch.no_grad():
            alone = torch.cat([self.scalars(self.model, batches.rows(batch, n, n + 1)) for n in (0, 1)])
        tolerance = 5e-2 if values.element_size() < 4 else 1e-3
        if float((values[:2] - alone).abs().max()) > tolerance * float(alone.abs().max()):
            raise ForgetlessError(coupling(self.model, batch, self.scalars, tolerance))

    def _add(self, batch: Any, scalars: int, rows: int) -> None:
        """Add samples that are taken together, at most about so many rows at a time."""
        apart = self.root or self.confidence is not None
        found: dict[str, Tensor] = {} if apart else self.sums
        for piece in [batch] if self.copies is None else self.copies.pieces(batch, scalars, rows):
            self._measure(piece, found)
        samples = batches.size(batch)
        self.count += samples
        if self.root:
            found = {name: total.sqrt_() for name, total in found.items()}
        if self.confidence is not None:
            self.confidence.add(found, samples)
        if apart:
            _accumulate(self.sums, found)
        if self.until is not None and self.confidence is not None and self.confidence.batches >= self.next:
            self.next = math.ceil(_LOOK_AGAIN * self.next)
            self.enough = self.until(self.result())

    def result(self) -> Sums:
        if self.count == 0:
            raise ForgetlessError("the data hold no samples, so there is nothing to measure importance on.")
        unused = tuple(name for name in self.parameters if name not in self.sums)
        if len(unused) == len(self.parameters):
            raise ForgetlessError(
                f"no parameter of {type(self.model).__name__} takes part in the output that is measured: it carries no "
                "gradient (was it detached, or computed under no_grad?)."
            )
        sums = {
            name: self.sums[name] if name in self.sums else torch.zeros_like(parameter, dtype=_wide(parameter))
            for name, parameter in self.parameters.items()
        }
        for name, total in sums.items():
            if not self._finite(total):
                raise ForgetlessError(
                    f"the gradients of {name!r} overflow {self.parameters[name].dtype}; "
                    "measure in bfloat16 or float32 (model.float())."
                )
        return Sums(sums, self.count, unused, self.confidence)

    def _finite(self, total: Tensor) -> bool:
        return batches.finite(total)

    def _step(self, samples: int) -> int:
        if self.batch_size is not None:
            return self.batch_size
        if self.plan is None:
            return 1 if samples > 1 else samples
        fitting = int(_ACTIVATIONS / max(1.0, self.plan.sample_bytes))
        largest = _LARGEST if self.confidence is None else _LARGEST_COMPARED
        pieces = math.ceil(samples / max(1, min(largest, fitting)))
        return math.ceil(samples / max(1, pieces)) or 1  # equal pieces: a short last one would cost as a whole one

    def _measure(self, batch: Any, found: dict[str, Tensor]) -> None:
        if self.plan is None:  # a batch of one, before any two samples were seen: exact as it is
            self._deposit(*single_sums(self.model, self.parameters, batch, self.scalars, self.power), batch, found)
            return
        if self.plan.batched:
            _, values, tape = batched_sums(
                self.model, self.plan.batched, batch, self.scalars, self.power, self.plan.axes, found
            )
            lost = [name for name in tape.unruled if name in self.plan.batched]
            if lost:
                self._demote(tape.unruled)
                return self._measure(batch, found)
            self._deposit({}, values, batch, found)
            self._compare(batch, values)
        if self.plan.single:
            self._deposit(*single_sums(self.model, self.plan.single, batch, self.scalars, self.power), batch, found)

    def _demote(self, unruled: dict[str, str]) -> None:
        """A later batch took another path than the first two samples did: measure what it lost one by one."""
        assert self.plan is not None
        why = {**self.plan.why, **{name: f"no rule for {operation}" for name, operation in unruled.items()}}
        batched = {name: value for name, value in self.plan.batched.items() if name not in why}
        single = {name: self.parameters[name] for name in why}
        self.plan = replace(self.plan, batched=batched, single=single, why=why)
        self._warn(self.plan)

    def _deposit(self, sums: dict[str, Tensor], values: Tensor, batch: Any, found: dict[str, Tensor]) -> None:
        if not bool(torch.isfinite(values).all()):
            raise ForgetlessError(overflow(self.model, batch, self.scalars))
        _accumulate(found, sums)

    def _warn(self, found: Plan) -> None:
        if not found.single:
            return
        batched, single = found.sample_seconds
        reasons = "; ".join(sorted(set(found.why.values())))
        warnings.warn(
            f"{len(found.single)} of {len(self.parameters)} parameters are measured one sample at a time: "
            f"{listing(found.single)} ({reasons}). The numbers are exact, but a sample costs about "
            f"{1000 * (batched + single):.3g} ms instead of {1000 * batched:.3g} ms.",
            stacklevel=6,
        )


def _accumulate(into: dict[str, Tensor], sums: dict[str, Tensor]) -> None:
    for name, total in sums.items():
        wide = total.detach().to(_wide(total))
        into[name] = into[name].add_(wide) if name in into else wide.clone()


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _refuse_non_finite_weights(model: nn.Module) -> None:
    parameters = dict(model.named_parameters())
    for name, tensor in {**parameters, **dict(model.named_buffers())}.items():
        if not tensor.is_floating_point() or batches.finite(tensor):
            continue
        if name in parameters or bool(torch.isnan(tensor).any()):  # a float mask buffer may hold -inf on purpose
            raise ForgetlessError(
                f"the weights of {name!r} hold NaN or Inf; the network is broken there, so load a sound checkpoint."
            )


@contextlib.contextmanager
def _shown(progress: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr; silent where stderr is no terminal."""
    if not progress:
        yield lambda samples: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("importance: {task.completed:.0f} samples"), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("importance", total=None)
        yield lambda samples: bar.advance(task, samples)
