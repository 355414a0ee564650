"""What the methods that keep old samples share: they differ in how they use them."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor
from torch.optim import Optimizer

from forgetless.learn.families.memory import Memory
from forgetless.learn.heads import MultiHead
from forgetless.learn.task import Method, Task


@dataclass
class Replaying(Method):
    """Keep samples of every task that was learned, with their labels, and recall them while the next is learned.

    Attributes:
        memory: the most samples kept, of all tasks together; None for all of them.
    """

    memory: int | None = field(default=500, kw_only=True)
    _memory: Memory = field(init=False, repr=False)
    _model: MultiHead | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self._memory = Memory(self.memory)

    def begin(self, model: MultiHead, task: Task, optimizer: Optimizer) -> None:
        """Remember the network that is to recall."""
        self._model = model

    def end(self, model: MultiHead, task: Task) -> None:
        """Keep samples of the task."""
        self._memory.add(task)

    def state(self) -> dict[str, Tensor]:
        """The samples."""
        return self._memory.state()

    def load_state(self, model: MultiHead, tensors: dict[str, Tensor]) -> None:
        """Take the samples back."""
        self._memory.load_state(tensors)
