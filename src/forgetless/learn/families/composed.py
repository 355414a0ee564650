"""Several methods at once, as one: `mas+er` protects the weights that matter and replays old samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.optim import Optimizer

from forgetless.errors import ForgetlessError
from forgetless.learn.families.state import pack, unpack
from forgetless.learn.method import Method
from forgetless.learn.network import Network
from forgetless.learn.samples import Batch
from forgetless.learn.task import Task
from forgetless.model.parameters import listing
from forgetless.protect.anchor import Anchor


@dataclass
class Composed(Method):
    """Every part does what it does alone: penalties add up, hooks run in the order of the parts.

    A part that looks at gradients (`si`, `rwalk`, `a-gem`) sees those of the whole loss, with the other parts'
    penalties. The pull of an anchor is not part of a gradient.

    Attributes:
        parts: the methods, each of another kind.
        strength: λ of the first part that takes one; change it by `set_strength`.

    Raises:
        ForgetlessError: fewer than two parts, or two of a kind.
    """

    parts: Sequence[Method]

    def __post_init__(self) -> None:
        names = [part.name for part in self.parts]
        if len(names) < 2 or len(set(names)) < len(names):
            raise ForgetlessError(f"a composition takes two methods or more, each once, not {listing(names)}.")
        self.strength = next((part.strength for part in self.parts if part.strength is not None), None)

    @property
    def name(self) -> str:  # type: ignore[override]
        """The parts' names, joined by +."""
        return "+".join(part.name for part in self.parts)

    @property
    def automatic(self) -> bool:  # type: ignore[override]
        """Whether the first part that takes a strength takes "auto"."""
        return next((part.automatic for part in self.parts if part.strength is not None), False)

    def set_strength(self, strength: float | str) -> None:
        """Give another λ, or "auto", to the first part that takes one."""
        first = next(part for part in self.parts if part.strength is not None)
        first.set_strength(strength)
        self.strength = first.strength

    def settings(self) -> dict[str, str | int | float | bool | None]:
        """Those of all parts, as "PART.SETTING"."""
        return {f"{part.name}.{name}": value for part in self.parts for name, value in part.settings().items()}

    def begin(self, model: Network, task: Task, optimizer: Optimizer) -> None:
        """Let all parts begin, in order."""
        for part in self.parts:
            part.begin(model, task, optimizer)

    def penalty(self, batch: Batch) -> Tensor | None:
        """The sum of their penalties."""
        found = [part.penalty(batch) for part in self.parts]
        penalties = [penalty for penalty in found if penalty is not None]
        return sum(penalties[1:], start=penalties[0]) if penalties else None

    def observe(self, model: Network, batch: Batch, losses: Tensor) -> None:
        """Let all parts observe, in order."""
        for part in self.parts:
            part.observe(model, batch, losses)

    def end(self, model: Network, task: Task) -> None:
        """Let all parts end, the last to begin first."""
        for part in reversed(self.parts):
            part.end(model, task)

    def anchors(self) -> tuple[Anchor, ...]:
        """Those of all parts."""
        return tuple(anchor for part in self.parts for anchor in part.anchors())

    def state(self) -> dict[str, Tensor]:
        """What all parts keep, by the parts' names."""
        return pack({part.name: part.state() for part in self.parts})

    def load_state(self, model: Network, tensors: dict[str, Tensor], tasks: Sequence[Task] = ()) -> None:
        """Give every part its own back."""
        kept = unpack(tensors)
        for part in self.parts:
            part.load_state(model, kept.get(part.name, {}), tasks)
