"""What the methods that keep old samples share: they differ in how they use them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor
from torch.optim import Optimizer

from forgetless.learn.families.memory import Memory
from forgetless.learn.families.state import pack, unpack
from forgetless.learn.method import Method
from forgetless.learn.network import Network
from forgetless.learn.task import Task


@dataclass
class Replaying(Method):
    """Keep samples of every task that was learned, with their targets, and use them while the next is learned.

    Attributes:
        memory: the most samples kept, of all tasks together; None for all of them.
    """

    memory: int | None = field(default=500, kw_only=True)
    _memory: Memory = field(init=False, repr=False)
    _model: Network | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self._memory = Memory(self.memory)

    def begin(self, model: Network, task: Task, optimizer: Optimizer) -> None:
        """Remember the network that the samples are replayed through."""
        self._model = model

    def end(self, model: Network, task: Task) -> None:
        """Keep samples of the task."""
        self._memory.add(task)

    def state(self) -> dict[str, Tensor]:
        """The samples."""
        return pack({"memory": self._memory.tree()})

    def load_state(self, model: Network, tensors: dict[str, Tensor], tasks: Sequence[Task] = ()) -> None:
        """Take the samples back."""
        self._memory.load(unpack(tensors).get("memory", {}), tasks)
