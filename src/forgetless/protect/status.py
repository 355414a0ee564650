"""`Status`: what an anchor has done so far."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Status:
    """What an anchor has done so far; it stays readable after `detach`.

    Attributes:
        steps: of the optimizers that it was attached to, while it was.
        applied: those of them in which it acted: λ or w was above 0, and the step was not skipped.
        strength: λ now.
        frozen_fraction: the share of the anchored weights that the pull stops, s > 1, at the peak of the learning rate;
            None where it pulls on no optimizer and has not.
    """

    steps: int
    applied: int
    strength: float
    frozen_fraction: float | None
