"""`DriftBudget`: as little strength as keeps the change of the output below a cap, without samples of the old use."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn
from torch.optim import Optimizer

from forgetless.errors import ForgetlessError
from forgetless.protect.strength.dial import Anchored, Dial, bound, log, plasticity, shrink

_AIM, _EASE, _CEILING, _FLOOR = 0.9, 0.8, 1e8, 1e-8


@dataclass(frozen=True)
class Spending:
    """What the dial saw and did after a step.

    Attributes:
        step: the optimizer's steps since it was attached.
        spent: `Σ Ω |θ − θ*| / cap`, after the weights were moved back if they were.
        strength: λ from then on.
        plasticity: `1 − anchor.frozen_fraction()`, the share of the anchored weights that can still move; None where
            the anchor is attached with "gradient".
        returned: what is left of `θ − θ*` after moving back; 1 where it did not.
    """

    step: int
    spent: float
    strength: float
    plasticity: float | None
    returned: float = 1.0


class DriftBudget(Dial):
    """A strength that keeps `Σ Ω |θ − θ*|` within `cap`: `Anchor(model, importance, strength=DriftBudget(0.5))`.

    With Ω of `forgetless.mas` the sum is, to first order, no less than the mean change of ‖F(x)‖² over the samples
    that Ω was measured on, in the units of ‖F‖² (Σ Ω (θ − θ*)² bounds nothing of the kind). Every few steps, b the sum
    over the cap,

        λ ← λ · min((b / 0.9)², 10)     if b > 0.9,
        λ ← 0.8 λ                       if b < 0.6,

    and where b > 1 all the same, the weights move back, `θ ← θ* + (θ − θ*) / b`, to where the budget is just kept.

    Attributes:
        history: one `Spending` per look.
    """

    def __init__(
        self,
        cap: float,
        *,
        start: float = 1.0,
        every: int = 10,
        on_spending: Callable[[Spending], None] | None = None,
    ) -> None:
        """Nothing is looked at before the anchor is attached.

        Args:
            cap: what the sum may be, above 0; a tenth of the mean ‖F‖² is a start.
            start: λ at first.
            every: steps between two looks; each reads θ, θ* and Ω once.
            on_spending: called with every `Spending`, to pass it on to a logger.

        Raises:
            ForgetlessError: a cap or a start that is no positive number.
        """
        for name, value in (("the cap", cap), ("start", start)):
            if not (math.isfinite(value) and value > 0):
                raise ForgetlessError(f"{name} must be a finite number above 0, not {value!r}.")
        if every < 1:
            raise ForgetlessError(f"every must be a number of steps of 1 or more, not {every!r}.")
        self.cap, self.value, self.every = cap, start, every
        self.history: list[Spending] = []
        self._steps = 0
        self._tell = on_spending
        self._anchor: Anchored | None = None
        self._warned = False

    def begin(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Start to count steps."""
        self._steps = 0

    def stepped(self, anchor: Anchored) -> None:
        """Look at the sum if it is time to, and move λ."""
        self._anchor = anchor
        self._steps += 1
        if self._steps % self.every or not anchor.anchored():
            return
        spent = bound(anchor.anchored()) / self.cap
        if spent > _AIM:
            anchor.strength = min(anchor.strength * min((spent / _AIM) ** 2, 10.0), _CEILING)
        elif spent < 2 / 3 * _AIM:
            anchor.strength = max(anchor.strength * _EASE, _FLOOR)
        self._note(anchor, spent)

    def settle(self) -> float:
        """Look at the sum once more, and move back if it is over the cap; gives what is spent of it.

        Raises:
            ForgetlessError: the anchor has not been attached.
        """
        if self._anchor is None:
            raise ForgetlessError("settle() is for after training: attach the anchor and take a step first.")
        spent = bound(self._anchor.anchored()) / self.cap
        self._note(self._anchor, spent)
        return min(spent, 1.0)

    def _note(self, anchor: Anchored, spent: float) -> None:
        left = 1.0
        if not math.isfinite(spent):
            raise ForgetlessError("the weights became NaN or Inf, so no budget can be kept; lower the learning rate.")
        if spent > 1:
            left = 1 / spent
            shrink(anchor.anchored(), left)
            said = f"after {self._steps} steps {spent:.2f} of the budget was spent: the weights went back into it"
            log.info(said)
            if not self._warned:
                self._warned = True
                warnings.warn(f"{said}, and the strength rose to {anchor.strength:.3g}.", stacklevel=5)
        seen = Spending(self._steps, min(spent, 1.0), anchor.strength, plasticity(anchor), left)
        self.history.append(seen)
        log.info("step %d: %.2f of the budget, strength %.3g", seen.step, seen.spent, seen.strength)
        if self._tell is not None:
            self._tell(seen)
