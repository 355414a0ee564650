"""`HoldShare`: a strength without units: how much of the movement is to be held back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import nn
from torch.optim import Optimizer

from forgetless.errors import ForgetlessError
from forgetless.protect.strength.dial import Dial, log

#: Of the movement, by default; chosen by `python -m studies.evidence.share`.
SHARE = 0.65


@runtime_checkable
class Holding(Protocol):
    """What this dial sees of an anchor."""

    strength: float

    def strength_holding(self, share: float, steps: float, moved: float | None = None) -> float | None:
        """λ at which that share of the movement, or of what is anchored, is held by so many steps."""


@dataclass(frozen=True)
class Found:
    """A strength that the dial found.

    Attributes:
        step: the optimizer's steps since θ* was set.
        strength: λ from then on.
    """

    step: int
    strength: float


class HoldShare(Dial):
    """The strength that holds a share of the movement: `Anchor(model, importance, strength=HoldShare(0.9))`.

    A weight is held if the pulls of the training would bring it back by themselves, `Σ_t s_t ≥ 1`: then it ends near
    its balance with the gradient, and below that it moves almost as if it were free. λ is set so that held weights
    account for `share` of the way that all anchored weights would go unprotected, `Σ |θ − θ*|`. It has no unit: the
    scale of Ω, the learning rate and the optimizer make no difference, which they do to λ = 1.

    It is the movement and not the number of weights because optimizers differ: SGD moves few weights far, those with
    large gradients, which often matter to the old task as well; Adam moves all alike.

    s depends on the optimizer's state, which settles: λ is found after the first step that moved a weight, and again
    whenever twice as many steps are done. Before the first time it is 0. Each of these looks takes the training to be
    as long as it has been so far: λ is large at first and falls as training goes on, however long that is. At the end,
    compared with the λ for the length that the training had, it is up to twice as large under a constant rate, and down
    to half as large under one that falls to 0.

    With `steps` each look takes the training to be of that length, and the last one comes at half of it: λ is smaller
    at first, and early steps are held less.

    Attributes:
        history: one `Found` each time.
    """

    needs_form = True

    def __init__(
        self,
        share: float = SHARE,
        *,
        steps: float | None = None,
        of: str = "movement",
        on_found: Callable[[Found], None] | None = None,
    ) -> None:
        """Nothing is computed before the anchor is attached.

        Args:
            share: of the movement, in (0, 1].
            steps: to set λ for a training of that length, counted in steps at the peak rate: 500 for 1,000 steps whose
                rate falls linearly to 0; None for the length so far.
            of: "movement"; or "weights", of which all that are anchored count alike.
            on_found: called with every `Found`, to pass it on to a logger.

        Raises:
            ForgetlessError: a share outside (0, 1] or of something else, or a number of steps that is not positive.
        """
        if not 0 < share <= 1:
            raise ForgetlessError(f"the share must be in (0, 1], not {share!r}.")
        if of not in ("movement", "weights"):
            raise ForgetlessError(f"of must be 'movement' or 'weights', not {of!r}.")
        if steps is not None and not (math.isfinite(steps) and steps > 0):
            raise ForgetlessError(f"steps must be a finite number above 0, not {steps!r}.")
        self.share, self.of_movement, self.value = share, of == "movement", 0.0
        self.steps = None if steps is None else float(steps)
        self.history: list[Found] = []
        self._tell = on_found
        self._taken, self._next = 0, 1

    def remember(self, model: nn.Module) -> None:
        """Start to count steps: Ω and θ* are new."""
        self._taken, self._next = 0, 1

    def begin(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Training begins, or goes on."""

    def stepped(self, anchor: Holding) -> None:
        """Find λ if it is time to."""
        self._taken += 1
        steps = self._taken if self.steps is None else self.steps
        found_before = self._next > 1
        late = self.steps is not None and found_before and 2 * self._taken > self.steps
        if self._taken < self._next or late:
            return
        found = anchor.strength_holding(self.share, steps, self._taken if self.of_movement else None)
        if found is None:
            return  # nothing has moved yet: look again after the next step
        self._next = 2 * self._taken
        anchor.strength = found
        self.history.append(Found(self._taken, found))
        what = "movement" if self.of_movement else "weights"
        log.info("step %d: strength %.3g holds %.0f %% of the %s", self._taken, found, 100 * self.share, what)
        if self._tell is not None:
            self._tell(self.history[-1])

    @classmethod
    def resumed(cls, state: Mapping[str, float]) -> HoldShare | None:
        """The dial that `state` is of, where it stood; None if it is of none of this kind.

        Raises:
            ForgetlessError: numbers that it cannot have.
        """
        if "share" not in state:
            return None
        of = "movement" if state.get("movement") else "weights"
        dial = cls(state["share"], steps=state.get("steps") or None, of=of)
        dial.restore(dict(state))
        return dial

    def state(self) -> dict[str, float]:
        """What it holds, and where it stands in its training; 0 steps for a length that is not known."""
        chosen = {"share": self.share, "steps": self.steps or 0.0, "movement": float(self.of_movement)}
        return {**chosen, "taken": float(self._taken), "next": float(self._next)}

    def restore(self, state: dict[str, float]) -> None:
        """Go on from where `state` stood, with this one's own share and steps."""
        self._taken, self._next = int(state.get("taken", 0)), int(state.get("next", 1))
