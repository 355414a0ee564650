"""Several methods at once, as one: `mas+er` holds the weights that matter and replays old samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.optim import Optimizer

from forgetless.errors import ForgetlessError
from forgetless.learn.heads import MultiHead
from forgetless.learn.task import Method, Task
from forgetless.model.parameters import listing


@dataclass
class Composed(Method):
    """Every part does what it does alone: penalties add up, hooks run in the order of the parts.

    A part that looks at gradients (`si`, `rwalk`, `a-gem`) sees those of the whole loss, the other parts' penalties
    included; pulls are none of it.

    Attributes:
        parts: the methods, each of another kind.

    Raises:
        ForgetlessError: fewer than two parts, or two of a kind.
    """

    parts: Sequence[Method]

    def __post_init__(self) -> None:
        names = [part.name for part in self.parts]
        if len(names) < 2 or len(set(names)) < len(names):
            raise ForgetlessError(f"a composition takes two methods or more, each once, not {listing(names)}.")

    @property
    def name(self) -> str:  # type: ignore[override]
        """The parts' names, joined by +."""
        return "+".join(part.name for part in self.parts)

    @property
    def strength(self) -> float | None:
        """λ of the first part that has one."""
        return next((part.strength for part in self.parts if part.strength is not None), None)

    @strength.setter
    def strength(self, value: float) -> None:
        part = next(part for part in self.parts if part.strength is not None)
        part.strength = value  # type: ignore[misc]  # a field of every method that takes one

    def settings(self) -> dict[str, str | int | float | bool | None]:
        """Those of all parts, as "PART.SETTING"."""
        return {f"{part.name}.{name}": value for part in self.parts for name, value in part.settings().items()}

    def begin(self, model: MultiHead, task: Task, optimizer: Optimizer) -> None:
        """Let all parts begin, in order."""
        for part in self.parts:
            part.begin(model, task, optimizer)

    def penalty(self, inputs: Tensor, labels: Tensor, logits: Tensor) -> Tensor | None:
        """The sum of their penalties."""
        found = [part.penalty(inputs, labels, logits) for part in self.parts]
        penalties = [penalty for penalty in found if penalty is not None]
        return sum(penalties[1:], start=penalties[0]) if penalties else None

    def end(self, model: MultiHead, task: Task) -> None:
        """Let all parts end; the last to attach goes first."""
        for part in reversed(self.parts):
            part.end(model, task)

    def state(self) -> dict[str, Tensor]:
        """What all parts keep, as "PART/NAME"."""
        return {f"{part.name}/{key}": tensor for part in self.parts for key, tensor in part.state().items()}

    def load_state(self, model: MultiHead, tensors: dict[str, Tensor]) -> None:
        """Give every part its own back."""
        for part in self.parts:
            own = f"{part.name}/"
            part.load_state(model, {key.removeprefix(own): t for key, t in tensors.items() if key.startswith(own)})
