"""MAS as other codes compute it, for comparison only: the modulus of a whole batch's gradient.

Hsu et al. 2018, De Lange et al. 2021 and others; `forgetless.learn.families.emulation` has what each of them does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from forgetless.learn.families.anchored import Anchored
from forgetless.learn.families.emulation import emulate
from forgetless.learn.method import Strength
from forgetless.learn.network import Network
from forgetless.learn.task import Task
from forgetless.measure.importance import Importance
from forgetless.model import batches


@dataclass
class MASPerBatch(Anchored):
    """`Ω = |∂ Σ_{n in batch} ‖F(x_n)‖² / ∂θ|`, summed over batches: less than Eq. 2's, and dependent on the batch size.

    Differences from those codes: Ω of several tasks is summed in every case. The penalty acts on the gradient, as
    theirs, and may diverge as theirs.

    Attributes:
        strength: λ, as in the code that is emulated.
        code: whose: "authors", "avalanche", "facil" or "hsu".
        batch: samples in a batch.
    """

    name: ClassVar[str] = "mas-per-batch"
    how: ClassVar[str] = "gradient"
    strength: Strength = 1.0
    code: Literal["authors", "avalanche", "facil", "hsu"] = "authors"
    batch: int = 200

    def measure(self, model: Network, task: Task) -> Importance:
        """Ω on the task's training inputs, in batches drawn at random."""
        order = torch.randperm(len(task.samples))
        return emulate(
            model,
            (batches.inputs(task.samples.take(chosen)) for chosen in torch.split(order, self.batch)),
            self.code,
            batch_size=self.batch,
            forward=lambda network, inputs: network(inputs, task.name),
            exclude=model.unshared,
        )
