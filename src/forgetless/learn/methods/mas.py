"""Memory Aware Synapses: protect every weight by how much it matters to what the network computes.

Aljundi, Babiloni, Elhoseiny, Rohrbach, Tuytelaars, "Memory Aware Synapses: Learning what (not) to forget", ECCV 2018,
arXiv 1711.09601.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from forgetless.learn.families.anchored import Anchored
from forgetless.learn.method import Strength
from forgetless.learn.network import Network
from forgetless.learn.task import Task
from forgetless.measure.estimators.mas import mas
from forgetless.measure.importance import Importance


@dataclass
class MAS(Anchored):
    """Ω is how sensitive the output is: `Ω = 1/N Σ_n |∂‖F(x_n)‖²/∂θ|` (Eq. 2), `λ Σ Ω (θ − θ*)²` (Eq. 3).

    Measured on the task's training inputs without their targets, through the task's own head, and summed over tasks
    (the paper's protocol "accumulate").

    Differences from the authors' code: the modulus is taken per sample whatever the batch size, as Eq. 2 says, and the
    penalty acts as a proximal step.

    Attributes:
        strength: λ; the paper's 1 in all its object recognition experiments, where it was not tuned.
    """

    name: ClassVar[str] = "mas"
    strength: Strength = 1.0

    def measure(self, model: Network, task: Task) -> Importance:
        """Eq. 2 on the task's training inputs."""
        return mas(
            model,
            task.inputs(),
            forward=lambda network, inputs: network(inputs, task.name),
            exclude=model.unshared,
            progress=False,
        )
