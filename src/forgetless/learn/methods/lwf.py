"""Learning without Forgetting: keep the old answers to the new inputs.

Li and Hoiem, "Learning without Forgetting", ECCV 2016, arXiv 1606.09282.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from forgetless.learn.families.distilled import Distilled


@dataclass
class LwF(Distilled):
    """`λ Σ_old KL(softmax(z*/τ) ‖ softmax(z/τ))`: z the old answers now, z* those of the network before the task.

    Both on the new task's inputs, a term for every old task. The gradient is that of the paper's cross-entropy between
    the two. Old heads are trained along, as in the paper. Memory: a copy of the network.

    What differs from the paper: the copy answers in eval mode during training, where the paper records its answers once
    (with augmented inputs they would not fit); the new head's own warm-up is the recipe's warm start. Where tasks share
    a head, which the paper does not treat, the one term counts once for every old task, and the old network gives the
    classes that a growing head has won no probability. Both are as in the public code of van de Ven and Tolias
    ("Three scenarios for continual learning", 2019, arXiv 1904.07734).

    Attributes:
        strength: λ; the paper's 1.
        temperature: τ; the paper's 2.
    """

    name: ClassVar[str] = "lwf"
