"""How far answers are from the old ones: the Kullback-Leibler divergence of their probabilities."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def log_probabilities(output: Tensor) -> Tensor:
    """Logits `[…, K]` → log-probabilities `[…, K]`, in float32 at least; a last axis of 1 is a yes or no, `[…, 2]`."""
    wide = output.to(torch.promote_types(output.dtype, torch.float32))
    if wide.shape[-1] == 1:
        wide = torch.cat([torch.zeros_like(wide), wide], -1)
    return wide.log_softmax(-1)


def divergence_of(old: Tensor, now: Tensor) -> Tensor:
    """`KL(p_old ‖ p_now)` of log-probabilities `[…, K]` along the last axis, in nats, `[…]`.

    Classes that joined had no probability; ones that left have none.
    """
    width = min(old.shape[-1], now.shape[-1])
    gap = F.kl_div(now[..., :width], old[..., :width], reduction="none", log_target=True)
    return gap.sum(-1).clamp_min(0)
