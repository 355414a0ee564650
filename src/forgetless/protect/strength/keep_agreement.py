"""`KeepAgreement`: as little strength as keeps the network's answers on a few unlabeled samples of its old use."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from forgetless.errors import ForgetlessError
from forgetless.model.outputs import Forward, Select
from forgetless.model.parameters import canonical, listing
from forgetless.protect.batchnorm import FrozenBatchNorm, freeze_batchnorm, with_statistics
from forgetless.protect.forgetting.asking import Asking
from forgetless.protect.forgetting.probes import Probes, Reading
from forgetless.protect.strength.dial import Anchored, Dial, log, plasticity, shrink

_EASE, _MOST_AT_ONCE, _CEILING, _FLOOR = 0.7, 10.0, 1e8, 1e-8
_PATIENCE = 4  # askings in a row that rising strength may take to help
_HALVINGS = 5  # of the way back to θ* before all of it is gone


@dataclass(frozen=True)
class Observation:
    """What the dial saw and did after a step.

    Attributes:
        step: the optimizer's steps since it was attached.
        agreement: the share of the old answers that are still given, over the latest to each probe.
        strength: λ from then on.
        plasticity: `1 − anchor.frozen_fraction()`, the share of the anchored weights that can still move; None where
            the anchor is attached with "gradient".
        returned: what is left of `θ − θ*` after going back; 1 where it did not.
    """

    step: int
    agreement: float
    strength: float
    plasticity: float | None
    returned: float = 1.0


class KeepAgreement(Dial):
    """A strength that is told what to keep, not how: `Anchor(model, importance, strength=KeepAgreement(0.98, probes))`.

    With m the share of answers missed and m* = 1 − target the share that may be, every few steps

        λ ← λ · exp(½ (m / m* − 1)), at most tenfold    if m > m* in the piece of the probes just asked about,
        λ ← 0.7 λ                                       if m ≤ m*/2 over the latest answers to all of them,

    and λ stays in between. Where that does not help (other things run free; the weights move far in a few steps), four
    askings in a row that miss the target send the anchored weights part of the way back to θ*, by halves, until the
    target is met, and a warning says so. Nothing is known after the last asking: `settle()` asks about all probes once
    more, and goes back in the same way if it must.

    Batch-norm statistics are frozen while the anchor is attached: where they move, no strength keeps the answers.

    The answers to be kept are those the network gives when θ* is set: at the anchor's making and after `consolidate`.

    Attributes:
        history: one `Observation` per asking.
    """

    def __init__(
        self,
        target: float,
        probes: Any,
        *,
        output: Select = None,
        forward: Forward | None = None,
        start: float = 1.0,
        every: int | None = None,
        freeze_batchnorm: bool = True,
        on_observation: Callable[[Observation], None] | None = None,
    ) -> None:
        """Nothing is asked before the anchor is made.

        Args:
            target: the share of answers to be kept, in (0, 1].
            probes: unlabeled samples of the old use, 100 or more, that the model was not trained on: the answers to
                those it was change last. See `forgetless.ForgettingMeter`.
            output: which tensors of the model's output are its answers; see `forgetless.mas`.
            forward: (model, batch) → output, where `model(inputs)` is not the way (an old head, say).
            start: λ at first.
            every: steps between two askings; by default what costs about 2 % of training
                (`forgetless.protect.forgetting.pace`).
            freeze_batchnorm: keep batch-norm statistics while attached.
            on_observation: called with every `Observation`, to pass it on to a logger.

        Raises:
            ForgetlessError: a target outside (0, 1], or a start that is no positive number.
        """
        if not 0 < target <= 1:
            raise ForgetlessError(f"the target must be a share of the answers in (0, 1], not {target!r}.")
        if not (math.isfinite(start) and start > 0):
            raise ForgetlessError(f"start must be a finite number above 0, not {start!r}.")
        if every is not None and every < 1:
            raise ForgetlessError(f"every must be a number of steps of 1 or more, not {every!r}.")
        self.target, self.value = target, start
        self.history: list[Observation] = []
        self._samples, self._output, self._forward, self._every = probes, output, forward, every
        self._freezes_batchnorm, self._tell = freeze_batchnorm, on_observation
        self._probes: Probes | None = None
        self._model: nn.Module | None = None
        self._anchor: Anchored | None = None
        self._statistics: FrozenBatchNorm | None = None
        self._buffers: dict[str, Tensor] = {}
        self._asking: Asking | None = None
        self._begun = False
        self._missed = 0

    def remember(self, model: nn.Module) -> None:
        """Ask for the answers that are to be kept.

        Raises:
            ForgetlessError: probes that do not fit the model.
        """
        if self._probes is None:
            self._probes = Probes(model, self._samples, output=self._output, forward=self._forward)
        else:
            self._probes.retake(model)
        self._model = model
        if self._asking is None:
            self._asking = Asking(model, self._probes, self._every)
        else:
            self._asking.read()
        self._buffers = {name: buffer.detach().clone() for name, buffer in _statistics(model).items()}

    def begin(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Freeze the statistics, and start to count steps."""
        if self._begun:
            return  # another optimizer of the same training
        self._begun = True
        if self._freezes_batchnorm and self._probes is not None and with_statistics(model):
            self._statistics = freeze_batchnorm(model)
        if self._asking is not None:
            self._asking.start()
        self._missed = 0

    def end(self) -> None:
        """Release the statistics."""
        if self._statistics is not None:
            self._statistics.release()
            self._statistics = None
        if self._asking is not None:
            self._asking.close()
        self._begun = False

    def stepped(self, anchor: Anchored) -> None:
        """Ask about a piece of the probes if it is due, and move λ."""
        self._anchor = anchor
        if self._asking is not None and self._begun:
            self._asking.stepped(lambda fresh, _: self._move(anchor, fresh))

    def settle(self) -> float:
        """Ask about all probes now; go back towards θ* if the target is missed.

        Returns:
            The agreement that is left.

        Raises:
            ForgetlessError: the anchor has not been attached, or nothing is protected.
        """
        if self._asking is None or self._anchor is None:
            raise ForgetlessError("settle() is for after training: attach the anchor and take a step first.")
        found = self._asking.read()
        if found.agreement < self.target:
            left, found = self._back(self._anchor, found, "after training")
            self._note(self._anchor, found, left)
        return found.agreement

    @property
    def cost(self) -> float:
        """What asking has cost so far: its seconds ÷ the seconds of training without it."""
        return 0.0 if self._asking is None else self._asking.cost

    def _move(self, anchor: Anchored, fresh: Reading) -> None:
        assert self._asking is not None
        assert self._probes is not None
        found, left = self._asking.latest, 1.0
        allowed = max(1 - self.target, 0.5 / len(self._probes))
        missed = 1 - fresh.agreement
        if missed > allowed:
            anchor.strength = min(anchor.strength * _rise(missed / allowed), _CEILING)
            self._missed += 1
            if self._missed >= _PATIENCE or anchor.strength == _CEILING:
                found = self._asking.read()
                if found.agreement < self.target:
                    when = f"after {self._asking.steps} steps, at strength {anchor.strength:.3g},"
                    left, found = self._back(anchor, found, when)
                self._missed = 0
        else:
            self._missed = 0
            if 1 - found.agreement <= allowed / 2:
                anchor.strength = max(anchor.strength * _EASE, _FLOOR)
        self._note(anchor, found, left)

    def _back(self, anchor: Anchored, found: Reading, when: str) -> tuple[float, Reading]:
        """Go back by halves until the target is met; gives what is left of the way, and the agreement there."""
        assert self._model is not None
        assert self._asking is not None
        before, left = found.agreement, 1.0
        while found.agreement < self.target and left:
            share = 0.5 if left > 0.5**_HALVINGS else 0.0
            left *= share
            shrink(anchor.anchored(), share)
            self._restore(share)
            found = self._asking.read()
        said = (
            f"{when} {before:.3f} of the answers agreed, less than {self.target:g}: the anchored weights went back "
            f"{1 - left:.0%} of the way to θ*, and {found.agreement:.3f} agree now"
        )
        if found.agreement < self.target:
            anchored = set(anchor.anchored())
            free = [canonical(n) for n, p in self._model.named_parameters() if p.requires_grad and p not in anchored]
            said += f"; the rest is lost through what is not anchored ({listing(free)})"
        log.warning(said)
        warnings.warn(f"{said}.", stacklevel=6)
        return left, found

    @torch.no_grad()
    def _restore(self, share: float) -> None:
        assert self._model is not None
        for name, buffer in _statistics(self._model).items():
            if name in self._buffers and buffer.is_floating_point():
                buffer.copy_(self._buffers[name].lerp(buffer, share))

    def _note(self, anchor: Anchored, found: Reading, left: float) -> None:
        step = 0 if self._asking is None else self._asking.steps
        seen = Observation(step, found.agreement, anchor.strength, plasticity(anchor), left)
        self.history.append(seen)
        log.info(
            "step %d: agreement %.3f, strength %.3g, plasticity left %s",
            step,
            seen.agreement,
            seen.strength,
            "unknown" if seen.plasticity is None else f"{seen.plasticity:.0%}",
        )
        if self._tell is not None:
            self._tell(seen)


def _rise(excess: float) -> float:
    return min(math.exp(0.5 * min(excess - 1, 10.0)), _MOST_AT_ONCE)


def _statistics(model: nn.Module) -> Mapping[str, Tensor]:
    return {
        f"{name}.{key}": buffer
        for name, layer in with_statistics(model).items()
        for key, buffer in layer.named_buffers(recurse=False)
    }
