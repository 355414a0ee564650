"""`WeightsWatch`: notices anchored weights that move where no anchor acts.

An anchor acts in the steps of the optimizer that it is attached to. A few values of the anchored weights are compared
between two of those steps, and from one backward pass to the next where no step comes. It warns, once,

- if the weights are other ones before a step than after the step before, twice within 20 steps, or once if by more
  than half of their norm: another optimizer, code that writes to them, a checkpoint of other weights;
- if they go on moving from backward pass to backward pass (8 times in a row) without an attached step: an optimizer
  that took the attached one's place, a compiled step that leaves out the hooks;
- if the attached optimizer no longer trains any anchored parameter, or the model has another one in its place.

It keeps silent where nothing moves (skipped steps, gradient accumulation, a learning rate or gradients of 0), and after
`consolidate` and `load_state_dict`: a single change of less than half the norm is no lasting loss of protection.
"""

from __future__ import annotations

import math
import warnings
import weakref
from collections.abc import Collection, Iterable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.weak import WeakTensorKeyDictionary

from forgetless.model.parameters import listing, named
from forgetless.model.sharding import is_sharded, local

_SAMPLED, _BLOCKS, _VALUES = 3, 8, 64  # parameters, blocks of each, and neighboring values of a block
_ELSEWHERE = 8  # steps between two comparisons on a device that would have to be waited for
_PATIENCE, _IN_A_ROW, _WALK = 20, 8, 16
_current: WeakTensorKeyDictionary = WeakTensorKeyDictionary()  # parameter → the watch that was made last


@runtime_checkable
class _Named(Protocol):
    @property
    def name(self) -> str: ...


@runtime_checkable
class Watched(Protocol):
    """What ties an anchor to an optimizer, as the watch sees it."""

    @property
    def optimizer(self) -> Optimizer:
        """Whose steps the anchor acts in."""

    @property
    def anchored(self) -> Collection[nn.Parameter]:
        """The parameters that it acts on."""

    def owned(self) -> Iterable[tuple[nn.Parameter, _Named, Any]]:
        """Those that the optimizer trains, each with its name and its group."""


class WeightsWatch:
    """Looks at a few weights before and after each step of an attached optimizer, and at backward passes."""

    def __init__(self, model: nn.Module, attachment: Watched) -> None:
        optimizer = attachment.optimizer
        self._name = type(optimizer).__name__
        self._model, self._attachment = weakref.ref(model), weakref.ref(attachment)
        owned = [(parameter, anchored.name) for parameter, anchored, _ in attachment.owned()]
        self._names = {name: weakref.ref(parameter) for parameter, name in owned if not is_sharded(parameter)}
        chosen = [owned[len(owned) * number // _SAMPLED] for number in range(_SAMPLED)] if owned else []
        self._parameters = [(parameter, name) for parameter, name in dict(chosen).items() if _readable(parameter)]
        self._after: list[Tensor] | None = None
        self._before: list[Tensor] | None = None
        self._seen: Tensor | None = None
        self._step = self._passes = self._moves = 0
        self._stepped, self._said = True, False
        self._strikes: list[int] = []
        self._handles: list[Any] = []
        if not self._parameters:
            return
        first = self._parameters[0][0]
        if (former := _current.get(first)) is not None and former() is not None:  # type: ignore[no-untyped-call]
            former().remove()  # another anchor on the same weights: the one attached last sees both act
        _current[first] = weakref.ref(self)
        self._handles = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
            first.register_post_accumulate_grad_hook(self._passed),  # type: ignore[no-untyped-call]
        ]

    def remove(self) -> None:
        """Watch no more."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if self._said or self._after is None:
            return
        for number, (was, now) in enumerate(zip(self._after, self._views(), strict=True)):
            if not self._said and not _same(was, now):
                self._judge(number, now)

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self._stepped = True
        self._step += 1
        if self._said:
            return
        waits = self._parameters[0][0].device.type != "cpu"
        capturing = waits and torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
        looks = not capturing and (not waits or self._step % _ELSEWHERE == 0)
        self._before, self._after = self._after, [view.clone() for view in self._views()] if looks else None
        if self._step % _WALK == 0:
            self._walk()

    def _judge(self, number: int, now: Tensor) -> None:
        assert self._after is not None
        was, name = self._after[number], self._parameters[number][1]
        moved, size = _norm(now - was), _norm(was)
        usual = 0.0 if self._before is None else _norm(was - self._before[number])
        if moved <= max(16 * torch.finfo(torch.float32).eps * size, 0.01 * usual):
            return  # rounding, as of an ascent taken back
        self._strikes = [step for step in self._strikes if self._step - step < _PATIENCE] + [self._step]
        if len(set(self._strikes)) > 1 or moved > 0.5 * size or not math.isfinite(moved):
            self._say(
                f"{name!r} was changed between two steps of the attached {self._name}, by something else: the anchor "
                f"acts in the steps of this {self._name} only; attach it to whatever trains these weights."
            )

    def _passed(self, parameter: Tensor) -> None:
        """A backward pass has reached the first of the parameters."""
        if self._said:
            return
        if self._stepped:
            self._stepped, self._seen, self._passes, self._moves = False, None, 0, 0
            return
        self._passes += 1
        waits = parameter.device.type != "cpu"
        if waits and self._passes % (_IN_A_ROW // 2):
            return
        now = _blocks(parameter).clone()
        if self._seen is not None:
            self._moves = 0 if _same(now, self._seen) else self._moves + 1
        self._seen = now
        if self._moves >= (2 if waits else _IN_A_ROW):
            self._say(
                f"{self._parameters[0][1]!r} is being trained, and not by steps of the {self._name} that the anchor is "
                "attached to: the anchor does not act; attach it to the optimizer that trains the model now."
            )

    def _walk(self) -> None:
        """Whether the optimizer and the model still have the parameters that were attached."""
        attachment, model = self._attachment(), self._model()
        if attachment is None or model is None:
            return
        trained = {id(parameter) for group in attachment.optimizer.param_groups for parameter in group["params"]}
        if trained.isdisjoint(id(parameter) for parameter in attachment.anchored):
            self._say(
                f"the {self._name} that the anchor is attached to no longer trains any anchored parameter: the anchor "
                "does not act; attach it to the optimizer that trains the model now."
            )
            return
        present = named(model) if self._names else {}
        gone = [n for n, was in self._names.items() if n in present and present[n] is not was()]
        if gone:
            self._say(
                f"{listing(gone)} became new tensors after the anchor was attached, and the anchor does not act on "
                "them; detach() it and attach() it to an optimizer made from the model as it is."
            )

    def _views(self) -> list[Tensor]:
        return [_blocks(parameter) for parameter, _ in self._parameters]

    def _say(self, sentence: str) -> None:
        self._said = True
        warnings.warn(sentence, stacklevel=4)


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether values are the same; NaN is, as in weights that have diverged."""
    return torch.equal(one, other) or bool(((one == other) | (one.isnan() & other.isnan())).all())


def _readable(parameter: Tensor) -> bool:
    """Whether a few values can be read from it as from a line."""
    held = local(parameter)
    return held.layout == torch.strided and held.is_contiguous() and held.numel() > 0


def _blocks(parameter: Tensor) -> Tensor:
    """A view of a few values, in blocks, for every single one would be fetched from memory on its own."""
    held = local(parameter.detach())
    if held.numel() <= _BLOCKS * _VALUES:
        return held
    return held.as_strided((_BLOCKS, _VALUES), (held.numel() // _BLOCKS, 1))


def _norm(values: Tensor) -> float:
    return float(torch.linalg.vector_norm(values.float()))
