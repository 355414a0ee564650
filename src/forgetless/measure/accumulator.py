"""`Accumulator`: from batches to an `Importance`. What `Measurement` and every estimator's function are built on."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from forgetless.errors import ForgetlessError
from forgetless.measure.engine.group import group_of
from forgetless.measure.engine.lockstep import Lockstep
from forgetless.measure.engine.padding import SENTENCE, padding_changes
from forgetless.measure.engine.progress import shown
from forgetless.measure.engine.refusals import foreign
from forgetless.measure.engine.sweep import Sums, Sweep
from forgetless.measure.engine.target import Quantity
from forgetless.measure.engine.whole import Whole
from forgetless.measure.importance import Importance, refuse_mismatch
from forgetless.model import batches, documents
from forgetless.model.network import Network
from forgetless.model.parameters import fingerprints, listing
from forgetless.model.restored import evaluating, untouched, watched

Until = float | Callable[[Importance], bool] | None


@dataclass(frozen=True)
class Estimator:
    """What is measured.

    Attributes:
        name: what the importance says it was measured by.
        quantity: what is summed over samples.
        pads: whether padded positions leave the quantity, so that documents of unequal length may go together.
        rows: (batch, the samples' numbers in the data `[N]`) → what the quantity's scalars take; None for the batch
            itself.
        look: (module, parameters by name, first batch) → what the user should be told of it.
    """

    name: str
    quantity: Quantity
    rows: Callable[[Any, Tensor], Any] | None = None
    look: Callable[[nn.Module, Mapping[str, Tensor], Any], list[str]] | None = None
    pads: bool = True


class Accumulator:
    """A measurement under way.

    What is learned about the network on the first batch (which parameters may be measured in batches, how many samples
    fit the memory) is kept for the later ones. Between batches the model is what it was, unless the accumulator is
    used as a context manager: then it is put into the state in which it is measured (eval mode, no gradients) once, and
    put back in the end.

    Args:
        network: the model, resolved.
        estimator: what is measured.
        into: an earlier measurement to pool with; unchanged.
        batch_size: samples at a time; None for what fits the memory.
        until: a relative standard error, or a callable that takes the importance; see `forgetless.mas`.
        prove: whether samples are measured alone as well now and then; see `forgetless.mas`.
        moving: whether the weights change between batches by intention, so that nothing is said of it, and the result
            has no fingerprints of them.
        memory: the most bytes that the activations of a batch may take; None for a default. It never changes the
            numbers.

    Attributes:
        enough: whether `until` is reached.

    Raises:
        ForgetlessError: settings out of range, or `into` of another network or estimator, or without what `until`
            needs.
    """

    def __init__(
        self,
        network: Network,
        estimator: Estimator,
        *,
        into: Importance | None = None,
        batch_size: int | None = None,
        until: Until = None,
        prove: bool = True,
        moving: bool = False,
        memory: int | None = None,
    ) -> None:
        _refuse(until)
        if memory is not None and not (isinstance(memory, int) and memory > 0):
            raise ForgetlessError(f"memory must be a number of bytes above 0, not {memory!r}.")
        self.network, self.estimator, self.until = network, estimator, until
        self._group = group_of(network.ranks)
        self._into = self._checked(into)
        self._batch_size, self._prove, self._memory = batch_size, prove, memory
        self._sweep: Sweep | None = None
        self._open = contextlib.ExitStack()
        self._inside = self._mixed = False
        self._moving = moving
        self._versions: tuple[int, ...] = ()
        self._weights: dict[str, str] = {}
        self._looked = self._padding_tried = False
        self._full = documents.FULL if estimator.pads else 1.0  # of the longest document, the shortest beside it
        self._next = 0  # the number of the next sample of this process

    @property
    def enough(self) -> bool:
        """Whether `until` is reached."""
        return self._sweep is not None and self._sweep.enough

    @property
    def count(self) -> int:
        """How many samples this process has measured, those of `into` aside."""
        return 0 if self._sweep is None else self._sweep.count

    def __enter__(self) -> Accumulator:
        if self._inside:
            raise ForgetlessError("this measurement is entered already.")
        self._open.enter_context(self._opened())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._open.__exit__(kind, error, at)

    def add(self, batch: Any) -> int:
        """Measure a batch; gives how many samples it had.

        Args:
            batch: a tensor, a tuple (inputs first) or a dict of tensors; of several processes every one adds its own,
                or None where it has none.

        Raises:
            ForgetlessError: NaN or Inf, samples that influence each other, an output that is not a float tensor with a
                row per sample, or parameters that are no longer the ones being measured.
        """
        with self._explained(batch), self._opened() as sweep:
            self._try_padding(sweep, batch)
            pieces = self._unpacked(batch)
            if not self._looked and pieces:
                self._looked = True
                self._look(sweep, *pieces[0])
            (steps,) = self._group.most(len(pieces))  # every process takes as many
            before = sweep.count
            for piece in [self._rows(*each) for each in pieces] + [None] * (steps - len(pieces)):
                sweep.add(piece, together=steps > 1)
            if steps > 1:
                sweep.close()
            return sweep.count - before

    def importance(self) -> Importance:
        """What was found so far, over all processes, pooled with `into`; later batches do not change it.

        Raises:
            ForgetlessError: no sample was measured, no parameter takes part in the output, or gradients overflowed.
        """
        with torch.inference_mode(False):
            return self._copied(self.latest())

    def restore(self, found: Importance) -> None:
        """Go on from what `latest` gave in an interrupted process, with bit-identical sums; nothing was measured yet.

        Unlike with `into=`, whose sums are added at the end, further samples are added to these.

        Raises:
            ForgetlessError: something was measured already, it is another network's or estimator's, or this measurement
                has an `into` or an `until`, which what is given says nothing of.
        """
        if self._into is not None or self.until is not None:
            raise ForgetlessError("restore() is for a measurement without into= and until=; begin it without them.")
        if self.count:
            raise ForgetlessError("this measurement has begun, so that no earlier one can take its place.")
        checked = self._checked(found)
        assert checked is not None
        with self._opened() as sweep:
            sweep.restore(checked.sums, round(checked.count))
        self._next = round(checked.count)

    @staticmethod
    def _copied(found: Importance) -> Importance:
        sums = {name: total.clone() for name, total in found.sums.items()}
        confidence = found.confidence
        if confidence is not None:
            half = {name: total.clone() for name, total in confidence.half.items()}
            confidence = dataclasses.replace(confidence, squares=dict(confidence.squares), half=half)
        return dataclasses.replace(found, sums=sums, confidence=confidence)

    def latest(self) -> Importance:
        """`importance()` without a copy: it changes with the next batch."""
        with self._opened() as sweep:
            return self._pooled(sweep.result())

    @contextlib.contextmanager
    def _explained(self, batch: Any) -> Iterator[None]:
        """Inside, an error that nothing has foreseen becomes one sentence, its cause kept."""
        try:
            yield
        except (ForgetlessError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            if self.network.ranks is not None:  # the other ranks wait for what they know
                raise
            raise ForgetlessError(foreign(self.network.module, batch, error)) from error

    def _look(self, sweep: Sweep, batch: Any, numbers: Tensor) -> None:
        """Before the first batch: what its first sample writes of the network, and what the user should be told."""
        module, parameters = self.network.module, sweep.passes.target.parameters
        own = sweep.admitted(batch)
        if own is None or (self.network.ranks is not None and self.network.ranks.sharded):
            return
        one = batches.mapped(batches.rows(self._rows(own, numbers), 0, 1), Tensor.clone)
        versions = [tensor._version for tensor in batches.tensors(one)]
        with contextlib.suppress(Exception), torch.no_grad(), watched(module) or contextlib.nullcontext():
            sweep.quantity.scalars(module, one)  # it will be measured, or refused, below
        if versions != [tensor._version for tensor in batches.tensors(one)]:
            return  # the model writes to its inputs, and is refused for that
        if self.estimator.look is not None and self.first:
            for sentence in self.estimator.look(module, parameters, own):
                warnings.warn(sentence, stacklevel=5)

    def dealt(self, data: Iterable[Any]) -> Iterator[Any]:
        """This process's batches, in step with the other processes."""
        return self._group.dealt(data)

    @property
    def first(self) -> bool:
        """Whether this is the process that speaks to the user."""
        return self._group.first

    def _checked(self, into: Importance | None) -> Importance | None:
        ranks, parameters = self.network.ranks, self.network.parameters
        if ranks is not None:
            ranks.refuse_difference((self.estimator.name, list(parameters), self.until is None), "what is asked for")
            ranks.refuse_difference(None if into is None else (into.estimator, into.count, sorted(into.sums)), "into=")
        if into is None:
            return None
        into = into if ranks is None else into.sharded_like(parameters)
        if into.estimator != self.estimator.name:
            raise ForgetlessError(
                f"an importance by {into.estimator!r} cannot be merged with one by {self.estimator.name!r}."
            )
        refuse_mismatch(into.sums, parameters, "the importance given as into=", "the model")
        if self.until is not None and into.confidence is None:
            raise ForgetlessError("until= needs an into= that was itself measured with until=.")
        return into

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Sweep]:
        """Inside, the model is as it is measured, and the sweep is there."""
        if self._inside:
            assert self._sweep is not None
            self._notice()
            yield self._sweep
            return
        ranks, module = self.network.ranks, self.network.module
        jointly = contextlib.nullcontext() if ranks is None else ranks.jointly()
        with jointly, untouched(module), self.network.followed() as parameters:
            if self._sweep is None:
                self._sweep = self._begun(parameters)
            self._notice()
            self._inside = True
            try:
                yield self._sweep
            finally:
                self._inside = False

    def _begun(self, parameters: dict[str, Tensor]) -> Sweep:
        network, quantity, ranks = self.network, self.estimator.quantity, self.network.ranks
        planned = self._batch_size != 1
        whole = functools.partial(Whole, warns=self.first, prove=self._prove, memory=self._memory)
        passes = (
            Lockstep(network, ranks, parameters, quantity, planned=planned)
            if ranks is not None and ranks.sharded
            else whole(network, parameters, quantity, planned=planned)
        )
        asked = None if self.until is None else lambda sums: self._reached(self._pooled(sums))
        return Sweep(passes, quantity, self._group, batch_size=self._batch_size, until=asked)

    def _notice(self) -> None:
        """What may have changed since the last batch: modes, weights, and which parameters are trainable.

        Weights that are written through `.data`, which torch counts as no change, are not seen.
        """
        module = self.network.module
        evaluating(module)
        gone = [name for name, parameter in self.network.parameters.items() if not parameter.requires_grad]
        if gone:
            raise ForgetlessError(
                f"{listing(gone)} can no longer be trained (requires_grad is False), so this measurement cannot go on; "
                "begin a new one."
            )
        versions = tuple(parameter._version for parameter in self.network.parameters.values())
        if versions == self._versions or (self._moving and self._versions):
            return  # weights that are not finite show in what the network computes
        _refuse_non_finite_weights(module)
        weights = fingerprints(self.network.parameters)
        if self._weights and weights != self._weights and self.count and not self._mixed:
            self._mixed = True
            changed = [name for name, value in weights.items() if value != self._weights[name]]
            warnings.warn(
                f"the weights have changed since the first batch ({listing(changed)}): this importance pools samples "
                "that were measured at different weights.",
                stacklevel=5,
            )
        self._weights, self._versions = {} if self._moving else weights, versions

    def _try_padding(self, sweep: Sweep, batch: Any) -> None:
        """On the first packed batch: from now on, put none but documents of equal length together if they must be."""
        ranks = self.network.ranks
        if batch is None or self._padding_tried or self._full >= 1 or (ranks is not None and ranks.sharded):
            return
        scalars, device = self.estimator.quantity.scalars, self.network.device
        target = dataclasses.replace(sweep.passes.target, scalars=scalars)
        changed = padding_changes(target, batch, lambda row, own: self._rows(batches.moved(row, device), own))
        self._padding_tried = changed is not None
        if changed:
            self._full = 1.0
            if self.first:
                warnings.warn(SENTENCE, stacklevel=5)

    def _unpacked(self, batch: Any) -> list[tuple[Any, Tensor]]:
        """A batch in as many parts as documents of unlike length ask for, and the numbers of their samples."""
        if batch is None:
            return []
        found = documents.unpacked(batch, self._full)
        own = [torch.arange(batches.size(piece)) if numbers is None else numbers for piece, numbers in found]
        ranks = self.network.ranks
        rank, size = (0, 1) if ranks is None else (ranks.rank, ranks.size)
        start = rank + (0 if self._into is None else round(self._into.count)) + self._next
        self._next += size * sum(map(len, own))
        return [(piece, start + size * numbers) for (piece, _), numbers in zip(found, own, strict=True)]

    def _rows(self, batch: Any, numbers: Tensor) -> Any:
        """What the estimator's scalars take."""
        return batch if self.estimator.rows is None else self.estimator.rows(batch, numbers)

    def _pooled(self, found: Sums) -> Importance:
        name, weights = self.estimator.name, self._weights
        fresh = Importance(found.sums, found.count, name, weights, found.unused, found.confidence)
        return fresh if self._into is None else self._into.merge(fresh)

    def _reached(self, found: Importance) -> bool:
        if callable(self.until):
            return bool(self.until(found))
        return self.until is not None and max(found.error().values()) <= self.until


def measure(
    network: Network,
    data: Iterable[Any],
    estimator: Estimator,
    *,
    into: Importance | None,
    batch_size: int | None,
    until: Until,
    prove: bool,
    progress: bool,
) -> Importance:
    """Measure all batches, or until it is enough: what every estimator's public function does.

    Args:
        network: the model, resolved.
        data: its batches (`batches.of`).
        estimator: what is measured.
        into: as for `Accumulator`, like `batch_size` and `until`.
        batch_size: samples at a time.
        until: when to stop early.
        prove: as for `Accumulator`.
        progress: show a progress bar on a terminal.

    Raises:
        ForgetlessError: all of `Accumulator`'s.
    """
    accumulator = Accumulator(network, estimator, into=into, batch_size=batch_size, until=until, prove=prove)
    with accumulator, shown(progress and accumulator.first) as advance:
        for batch in accumulator.dealt(data):
            advance(accumulator.add(batch))
            if accumulator.enough:
                break
        importance = accumulator.latest()
    if until is not None and not accumulator._reached(importance):
        warnings.warn(
            f"the data ended after {importance.count:,.0f} samples, before until= was reached: the relative standard "
            f"error is {max(importance.error().values()):.1%} in the least certain parameter; go on with into=.",
            stacklevel=3,
        )
    return importance


def _refuse(until: Until) -> None:
    if until is not None and not callable(until) and not (isinstance(until, (int, float)) and 0 < until < 1):
        raise ForgetlessError(
            f"until must be a relative error between 0 and 1 or a callable that takes the importance, not {until!r}."
        )


def _refuse_non_finite_weights(module: nn.Module) -> None:
    parameters = dict(module.named_parameters())
    for name, tensor in {**parameters, **dict(module.named_buffers())}.items():
        if not tensor.is_floating_point() or batches.finite(tensor):
            continue
        if name in parameters or bool(torch.isnan(tensor).any()):  # a float mask buffer may hold -inf on purpose
            raise ForgetlessError(
                f"the weights of {name!r} hold NaN or Inf; the network is broken there, so load a sound checkpoint."
            )
