"""Task-free Memory Aware Synapses: borders between tasks are found from the loss, and not told.

Aljundi, Kelchtermans, Tuytelaars, "Task-Free Continual Learning", CVPR 2019, arXiv 1812.03596.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor
from torch.optim import Optimizer

from forgetless.learn.families.anchored import Anchored
from forgetless.learn.families.hard_buffer import HardBuffer
from forgetless.learn.families.plateaus import Plateaus
from forgetless.learn.families.state import pack, unpack
from forgetless.learn.families.task_free import TaskFree
from forgetless.learn.method import Strength
from forgetless.learn.network import Network
from forgetless.learn.samples import Batch
from forgetless.learn.task import Task
from forgetless.measure.measurement import Measurement
from forgetless.model import batches


@dataclass
class TaskFreeMASMethod(Anchored):
    """Where the loss has settled, Ω is measured on the hardest samples, and protects the weights from then on.

    Ω is the mean over all such plateaus. The end of a task changes nothing. For streams outside this loop there is
    `forgetless.TaskFreeMAS`.

    Differences from the authors' code: as there. Where every task has a head of its own, the buffer begins anew with
    each task, since a sample needs the head of its task.

    Attributes:
        strength: λ.
        window: how many losses are looked at.
        mean: below which their mean is at a plateau; it depends on the loss.
        variance: below which their variance is.
        buffer: how many hard samples are kept.
    """

    name: ClassVar[str] = "task-free-mas"
    strength: Strength = 1.0
    window: int = 5
    mean: float = 0.2
    variance: float = 0.1
    buffer: int = 30
    _core: TaskFree = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._core = TaskFree(Plateaus(self.window, self.mean, self.variance), HardBuffer(self.buffer), "plateau")

    def begin(self, model: Network, task: Task, optimizer: Optimizer) -> None:
        """Attach the anchor to the new optimizer, and measure through the head of the task."""
        super().begin(model, task, optimizer)
        if model.unshared:
            self._core.hard = HardBuffer(self.buffer)
        self._core.measure_by(self._measurement(model, task))

    def observe(self, model: Network, batch: Batch, losses: Tensor) -> None:
        """Look at the losses of a step."""
        self._core.observe(self.anchor(model), losses, batches.inputs(batch))

    def end(self, model: Network, task: Task) -> None:
        """Detach the anchor from the task's optimizer."""
        self.anchor(model).detach()

    def state(self) -> dict[str, Tensor]:
        """θ* and Ω, the buffer, and where the window is."""
        return {**super().state(), **pack({"stream": self._core.tree()})}

    def load_state(self, model: Network, tensors: dict[str, Tensor], tasks: Sequence[Task] = ()) -> None:
        """Take all of them back."""
        super().load_state(model, tensors, tasks)
        kept: dict[str, Any] = unpack(tensors)
        if tasks and "stream" in kept:
            device = next(model.parameters()).device
            self._core.load(kept["stream"], self._measurement(model, tasks[-1]), device)

    def _measurement(self, model: Network, task: Task) -> Measurement:
        name = task.name
        return Measurement(
            model, "mas", moving=True, forward=lambda network, inputs: network(inputs, name), exclude=model.unshared
        )
