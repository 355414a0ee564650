"""Looking at the network after every task, beside R: figures and tensors that an experiment asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim import Optimizer

from forgetless.learn.families.state import pack, unpack
from forgetless.learn.method import Method
from forgetless.learn.network import Network
from forgetless.learn.samples import Batch
from forgetless.learn.task import Task
from forgetless.protect.anchor import Anchor

#: The network in eval mode after a task → what is looked at, by name.
Look = Callable[[Network], Mapping[str, Tensor]]


@dataclass
class Watched(Method):
    """A method that does what another does, and looks at the network at the end of every task.

    Attributes:
        inner: the other method.
        look: what looks.
    """

    inner: Method
    look: Look
    _found: dict[str, list[Tensor]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.strength = self.inner.strength

    @property
    def name(self) -> str:  # type: ignore[override]
        """The method's."""
        return self.inner.name

    def settings(self) -> dict[str, str | int | float | bool | None]:
        """The method's."""
        return self.inner.settings()

    @property
    def automatic(self) -> bool:  # type: ignore[override]
        """The method's."""
        return self.inner.automatic

    def found_strength(self) -> float | None:
        """The method's."""
        return self.inner.found_strength()

    def set_strength(self, strength: float | str) -> None:
        """Give it to the method."""
        self.inner.set_strength(strength)
        self.strength = self.inner.strength

    def begin(self, model: Network, task: Task, optimizer: Optimizer) -> None:
        """As the method does."""
        self.inner.begin(model, task, optimizer)

    def penalty(self, batch: Batch) -> Tensor | None:
        """The method's."""
        return self.inner.penalty(batch)

    def observe(self, model: Network, batch: Batch, losses: Tensor) -> None:
        """As the method does."""
        self.inner.observe(model, batch, losses)

    def end(self, model: Network, task: Task) -> None:
        """Let the method end the task, then look."""
        self.inner.end(model, task)
        training = model.training
        model.eval()
        with torch.no_grad():
            for name, found in self.look(model).items():
                self._found.setdefault(name, []).append(found.detach().to("cpu", copy=True))
        model.train(training)

    def anchors(self) -> tuple[Anchor, ...]:
        """The method's."""
        return self.inner.anchors()

    def state(self) -> dict[str, Tensor]:
        """What the method keeps, and what was seen so far."""
        seen = {name: {str(n): each for n, each in enumerate(found)} for name, found in self._found.items()}
        return pack({"method": self.inner.state(), "seen": seen})

    def load_state(self, model: Network, tensors: dict[str, Tensor], tasks: Sequence[Task] = ()) -> None:
        """Give the method its own back, and take what was seen."""
        kept = unpack(tensors)
        self.inner.load_state(model, kept.get("method", {}), tasks)
        seen: dict[str, dict[str, Tensor]] = kept.get("seen", {})
        self._found = {name: [found[str(n)] for n in range(len(found))] for name, found in seen.items()}

    def figures(self) -> dict[str, list[float]]:
        """The single numbers among what was seen: name → one after every task."""
        return {name: [float(each) for each in found] for name, found in self._found.items() if not found[0].dim()}

    def tensors(self) -> dict[str, Tensor]:
        """The rest: name → `[T, …]`, one after every task."""
        return {name: torch.stack(found) for name, found in self._found.items() if found[0].dim()}
