"""`ForgettingMeter`: how much of its old use a network has forgotten; stops training, or goes back, at too much."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from forgetless.errors import ForgetlessError
from forgetless.model.outputs import Forward, Select
from forgetless.model.parameters import unwrapped
from forgetless.protect.forgetting.asking import Asking
from forgetless.protect.forgetting.probes import Probes, Reading

_log = logging.getLogger("forgetless")


class ForgettingLimitReached(Exception):
    """Raised out of `optimizer.step()`, when that is done, by a meter that stops training; `with meter:` ends there."""


@dataclass(frozen=True)
class Mark:
    """A line of the meter's history.

    Attributes:
        step: the optimizer's steps since the meter was attached.
        agreement: the share of answers that are the same as at the beginning.
        kl: `KL(p_old ‖ p_now)` in nats, or None.
        accuracy: the share of right answers; None without labels.
    """

    step: int
    agreement: float
    kl: float | None
    accuracy: float | None


class ForgettingMeter:
    """Tells during training how far the answers on a few samples of the old use are from those at the beginning.

        meter = forgetless.ForgettingMeter(model, probes, stop_below=0.95, roll_back=True)
        with meter.attach(optimizer):
            train(…)                      # any loop; left when the answers agree on less than 95 % of the probes
        print(meter.stopped or "done", meter.history)

    Every few steps the network is asked about a piece of the probes, in turn; the readings are over the latest answer
    to each, so that the oldest of them are a round old. A stop or a return is decided only after asking about all of
    them at once, and so is what counts as a good state: with `roll_back` the end of every good round is kept. Memory:
    the probes and their old answers; with `roll_back` one copy of the weights and buffers.

    Attributes:
        history: what was read so far, one `Mark` per reading.
        stopped: the sentence that says why training was stopped, or None.
        returns: how often the model went back to its last good state.
    """

    def __init__(
        self,
        model: nn.Module,
        probes: Any,
        *,
        output: Select = None,
        forward: Forward | None = None,
        stop_below: float | None = None,
        roll_back: bool | float = False,
        every: int | None = None,
        on_reading: Callable[[Mark], None] | None = None,
    ) -> None:
        """Take the model's current answers as those to be kept.

        Args:
            model: the network, as it is to be remembered; asked in eval mode and left unchanged.
            probes: samples of the old use: a tensor, tuple (inputs first) or dict is one batch; a `Dataset` is batched;
                any other iterable yields batches. The first 1,024 are kept. Labels are not needed; with one integer
                label a sample, accuracy is read too. Not samples it was trained on, whose answers change last.
            output: which tensors of the model's output are its answers; see `forgetless.mas`.
            forward: (model, batch) → output, where `model(inputs)` is not the way (an old head, say).
            stop_below: the least agreement, in (0, 1]; below it training is stopped.
            roll_back: True: a stopped model is returned to its last good state first. A number in (0, 1]: whenever
                agreement falls below that, the model returns there and training goes on.
            every: steps between two askings. By default as many as let asking cost about 2 % of training
                (`forgetless.protect.forgetting.pace`; a network whose step takes less than a millisecond pays more).
            on_reading: called with every `Mark`, to pass it on to a logger.

        Raises:
            ForgetlessError: probes that do not fit the model, or a share that is none.
        """
        returning = roll_back if not isinstance(roll_back, bool) else None
        for name, value in (("stop_below", stop_below), ("roll_back", returning)):
            if value is not None and not 0 < value <= 1:
                raise ForgetlessError(f"{name} must be a share of the answers in (0, 1], not {value!r}.")
        if roll_back is True and stop_below is None:
            raise ForgetlessError(
                "roll_back=True returns a stopped model to its last good state, and nothing stops it: "
                "give stop_below= too, or the share below which to return, as in roll_back=0.95."
            )
        if every is not None and every < 1:
            raise ForgetlessError(f"every must be a number of steps of 1 or more, not {every!r}.")
        self._model, self._tell = model, on_reading
        self._stop_below, self._return_below, self._keeps = stop_below, returning, roll_back is not False
        self._probes = Probes(model, probes, output=output, forward=forward, labeled=None)
        self._asking = Asking(model, self._probes, every, rounds=2 if self._keeps else 1)
        self._handle: RemovableHandle | None = None
        self._good: dict[str, Tensor] = {}
        self._good_step = 0
        self.history: list[Mark] = []
        self.stopped: str | None = None
        self.returns = 0
        if self._keeps:
            self._keep()

    def attach(self, optimizer: Optimizer) -> ForgettingMeter:
        """Read after steps of `optimizer` from now on; a stop leaves its `step()` as `ForgettingLimitReached`.

        Raises:
            ForgetlessError: attached already.
        """
        if not isinstance(optimizer, Optimizer):
            raise ForgetlessError(f"attach() takes a torch.optim.Optimizer, not {type(optimizer).__name__}.")
        if self._handle is not None:
            raise ForgetlessError("the meter is attached already; call detach() first.")
        self._start()
        self._handle = optimizer.register_step_post_hook(self._stepped)
        return self

    def detach(self) -> None:
        """Let the optimizer go. Without an attachment it changes nothing."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
        self._asking.close()

    def step(self) -> bool:
        """Count a step, and read if one is due: for loops that do not attach. Whether training is to go on.

        Never raises `ForgettingLimitReached`: made for `while meter.step(): …` and `if not meter.step(): break`.
        """
        self._asking.stepped(self._judge)
        return self.stopped is None

    def read(self) -> Reading:
        """The answers to all probes now."""
        return self._asking.read()

    @property
    def cost(self) -> float:
        """What reading has cost so far: its seconds ÷ the seconds of training without it."""
        return self._asking.cost

    def __enter__(self) -> ForgettingMeter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> bool:
        self.detach()
        return isinstance(error, ForgettingLimitReached) and self.stopped is not None and str(error) == self.stopped

    def _start(self) -> None:
        self._asking.start()
        self.stopped = None

    def _stepped(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if not self.step():
            raise ForgettingLimitReached(self.stopped)

    def _judge(self, fresh: Reading, round_ends: bool) -> None:
        step, found = self._asking.steps, self._asking.latest
        floors = [floor for floor in (self._stop_below, self._return_below) if floor is not None]
        alarmed = floors and (found.agreement < max(floors) or _surely_below(fresh, max(floors)))
        if (alarmed or (self._keeps and round_ends)) and self._probes.pieces > 1:
            found = self.read()
        self._note(step, found)
        if self._stop_below is not None and found.agreement < self._stop_below:
            self._stop(step, found)
        elif self._return_below is not None and found.agreement < self._return_below:
            self._say(f"{_said(step, found, self._return_below)}: {self._back()}, and training goes on.")
        elif self._keeps and round_ends:
            self._keep(step)

    def _stop(self, step: int, found: Reading) -> None:
        after = f"; {self._back()}" if self._keeps else ""
        self.stopped = f"{_said(step, found, self._stop_below)}: training was stopped{after}."
        _log.warning(self.stopped)

    def _say(self, sentence: str) -> None:
        _log.warning(sentence)
        if self.returns == 1:
            warnings.warn(sentence, stacklevel=5)

    def _note(self, step: int, found: Reading) -> None:
        mark = Mark(step, found.agreement, found.kl, found.accuracy)
        self.history.append(mark)
        _log.info("step %d: agreement %.3f, KL %s", step, found.agreement, found.kl)
        if self._tell is not None:
            self._tell(mark)

    @torch.no_grad()
    def _keep(self, step: int = 0) -> None:
        self._good_step = step
        for name, tensor in _state(self._model).items():
            if name in self._good and self._good[name].shape == tensor.shape:
                self._good[name].copy_(tensor)
            else:
                self._good[name] = tensor.detach().clone()

    @torch.no_grad()
    def _back(self) -> str:
        for name, tensor in _state(self._model).items():
            if name in self._good and self._good[name].shape == tensor.shape:
                tensor.copy_(self._good[name])
        self.returns += 1
        agreement = self.read().agreement
        return f"weights and buffers are back as they were after step {self._good_step}, where {agreement:.3f} agree"


def _state(model: nn.Module) -> dict[str, Tensor]:
    inner = unwrapped(model)
    return {**dict(inner.named_parameters()), **dict(inner.named_buffers())}


def _surely_below(fresh: Reading, floor: float) -> bool:
    """Whether so few answers of one piece agree that it is no chance."""
    return fresh.agreement < floor - 2 * math.sqrt(max(floor * (1 - floor), 0.01) / fresh.samples)


def _said(step: int, found: Reading, floor: float | None) -> str:
    return f"after {step} steps the answers agree on {found.agreement:.3f} of the probes, less than {floor:g}"
