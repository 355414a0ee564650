"""Local MAS: every layer is measured on its own, by Hebb's rule: units that are active together matter together.

Aljundi, Babiloni, Elhoseiny, Rohrbach, Tuytelaars, "Memory Aware Synapses: Learning what (not) to forget", ECCV 2018,
arXiv 1711.09601, section 4.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from forgetless.learn.families.anchored import Anchored
from forgetless.learn.method import Strength
from forgetless.learn.network import Network
from forgetless.learn.task import Task
from forgetless.measure.estimators.local_mas import local_mas
from forgetless.measure.importance import Importance


@dataclass
class LocalMAS(Anchored):
    """`Ω = 1/N Σ_n |∂‖F_l(y_ln)‖²/∂θ_l|`, y_l the input of layer l held constant: `2 · 1/N Σ_n y_i y_j` after a ReLU.

    Measured on the task's training inputs without their targets, and summed over tasks. There is no backward pass
    through the network.

    Differences from the paper: none where it is explicit; it does not say how layers without a ReLU, and biases, are
    measured.

    Attributes:
        strength: λ; the paper's 1. Ω is not on the scale of the global one.
    """

    name: ClassVar[str] = "local-mas"
    strength: Strength = 1.0

    def measure(self, model: Network, task: Task) -> Importance:
        """The local Ω on the task's training inputs."""
        return local_mas(
            model,
            task.inputs(),
            forward=lambda network, inputs: network(inputs, task.name),
            exclude=model.unshared,
            progress=False,
        )
