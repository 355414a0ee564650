"""`CoreStatus`: what a frozen core holds, and what it has done."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class CoreStatus:
    """What a frozen core holds, and what it has done.

    Attributes:
        frozen: how many elements stand still.
        covered: how many elements the masks are of.
        fraction: `frozen / covered`.
        elements: how many the model has.
        steps: of the optimizers that it was attached to, while it was.
        per_parameter: name → the share of it that stands still.
        moved: how many times the core was found changed, by something else than these steps.
    """

    frozen: int
    covered: int
    fraction: float
    elements: int
    steps: int
    per_parameter: dict[str, float] = field(repr=False)  # hundreds of them in a language model
    moved: int
