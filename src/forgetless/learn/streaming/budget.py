"""`Budget`: what an online learner may use of its stream, the same for every learner that is compared."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from forgetless.errors import ForgetlessError


@dataclass(frozen=True)
class Budget:
    """One pass over the stream, so many updates on each of its batches, and a buffer.

    Attributes:
        lr: the learning rate of SGD, constant over the stream.
        batch_size: the most samples in a batch of the stream; a task's batches are of equal size (±1).
        glances: updates on each batch of the stream, with other samples from the buffer each time.
        buffer: the most samples that are kept, of all tasks together.
        replay: samples from the buffer in an update.
        momentum: of SGD; there is no weight decay.

    Raises:
        ForgetlessError: a value out of range.
    """

    lr: float
    batch_size: int = 32
    glances: int = 3
    buffer: int = 1000
    replay: int = 64
    momentum: float = 0.9

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ForgetlessError(f"an online learner's lr must be a positive number, not {self.lr!r}.")
        if not 0 <= self.momentum < 1:
            raise ForgetlessError(f"momentum must be at least 0 and below 1, not {self.momentum!r}.")
        for name in ("batch_size", "glances", "buffer", "replay"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ForgetlessError(f"an online learner's {name} must be an integer of at least 1, not {value!r}.")

    def settings(self) -> dict[str, str | int | float | bool | None]:
        """All fields: what defines it in a run's configuration and in a checkpoint."""
        return dataclasses.asdict(self)
