"""How a network learns from long texts: windows, rows, and the schedule of the learning rate. Published recipes too."""

from __future__ import annotations

import math
from dataclasses import dataclass

from forgetless.errors import ForgetlessError


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network learns.

    Attributes:
        steps: windows to learn from.
        window: positions of a window, n_s.
        rows: texts that are read at the same time.
        warm_up: steps in which the rate rises from `low` to `high`, in a line.
        decay: steps after these in which it falls to `low`, along a cosine; it stays there.
        low: the lowest rate.
        high: the highest.
        clip: the most the norm of all gradients of the network may be; those of its compressors are clipped alike, but
            apart, so that they do not shorten the network's.
        rare_after: the step after which the weights change once in `rare` windows only.
        rare: in how many.

    Raises:
        ForgetlessError: a value out of range.
    """

    steps: int
    window: int = 64
    rows: int = 16
    warm_up: int = 0
    decay: int = 0
    low: float = 1e-6
    high: float = 3e-4
    clip: float = 0.1
    rare_after: int = 60_000
    rare: int = 4

    def __post_init__(self) -> None:
        least = {"steps": 1, "window": 1, "rows": 1, "warm_up": 0, "decay": 0, "rare_after": 0, "rare": 1}
        for name, number in least.items():
            if getattr(self, name) < number:
                raise ForgetlessError(f"the recipe's {name} must be at least {number}, not {getattr(self, name)}.")
        for name in ("low", "high", "clip"):
            if not (math.isfinite(value := getattr(self, name)) and value > 0):
                raise ForgetlessError(f"the recipe's {name} must be a positive number, not {value}.")

    def rate(self, step: int) -> float:
        """The learning rate of a step, from 0."""
        if step < self.warm_up:
            return self.low + (self.high - self.low) * step / self.warm_up
        if step >= self.warm_up + self.decay:
            return self.low if self.decay else self.high
        return self.low + (self.high - self.low) * (1 + math.cos(math.pi * (step - self.warm_up) / self.decay)) / 2

    def moves(self, step: int) -> bool:
        """Whether the weights change after a step; between, gradients are summed."""
        late = step - self.rare_after
        return late < 0 or (late + 1) % self.rare == 0 or step + 1 == self.steps

    def share(self, step: int) -> float:
        """What a step's loss is divided by, so that gradients are means over the windows of an update."""
        return 1.0 if step < self.rare_after else 1 / self.rare


@dataclass(frozen=True)
class Published:
    """What the paper used for a corpus: the recipe, the network's sizes, and how much it keeps in the end."""

    recipe: dict[str, int | float]
    sizes: dict[str, int]
    longer: tuple[int, int]
    pieces: int | None


#: Rae et al. 2019: windows and memories as published. It trained on many chips at once (rows: 512 for PG-19, 128 for
#: WikiText-103). Width and heads are those of Transformer-XL's networks for these corpora. WikiText-103 has no word
#: vocabulary with an adaptive softmax here but pieces, as PG-19 has; its perplexity is by word all the same.
PUBLISHED: dict[str, Published] = {
    "enwik8": Published(
        {"steps": 104_000, "warm_up": 4_000, "decay": 100_000, "window": 768, "rows": 32},
        {"layers": 24, "width": 1024, "heads": 8, "hidden": 3072, "memory": 768, "compressed": 1152, "rate": 3},
        (768, 3072),
        None,
    ),
    "wikitext-103": Published(
        {"steps": 516_000, "warm_up": 16_000, "decay": 500_000, "window": 512, "rows": 128},
        {"layers": 18, "width": 1024, "heads": 16, "hidden": 4096, "memory": 512, "compressed": 512, "rate": 4},
        (500, 1500),
        32_000,
    ),
    "pg-19": Published(
        {"steps": 516_000, "warm_up": 16_000, "decay": 500_000, "window": 512, "rows": 512},
        {"layers": 36, "width": 1024, "heads": 16, "hidden": 4096, "memory": 512, "compressed": 512, "rate": 2},
        (512, 512),
        32_000,
    ),
}
