"""Learning without Forgetting: keep the old network's outputs on the new task's inputs.

Li and Hoiem, "Learning without Forgetting", ECCV 2016, arXiv 1606.09282.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from forgetless.learn.families.distilled import Distilled


@dataclass
class LwF(Distilled):
    """`λ Σ_k KL(softmax(z*_k/τ) ‖ softmax(z_k/τ))`: z_k the logits of old task k, z*_k those before the present task.

    Both on the new task's inputs, a term for every old task. The gradient is that of the paper's cross-entropy between
    the two. Old heads are trained as well, as in the paper. Other objectives bring their own divergence in place of KL.
    Memory: a copy of the network.

    Differences from the paper: the copy computes its outputs in eval mode during training, where the paper records them
    once (with augmented inputs they would not fit); the new head's first fit is the recipe's warm start. Where tasks
    share a head, which the paper does not treat, the one term counts once for every old task, and the old network gives
    the classes that a growing head has gained no probability. Both are as in the public code of van de Ven and Tolias
    ("Three scenarios for continual learning", 2019, arXiv 1904.07734).

    Attributes:
        strength: λ; the paper's 1.
        temperature: τ; the paper's 2.
    """

    name: ClassVar[str] = "lwf"
