"""At which strength do the pulls of a whole training hold a given share of the weights?"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from forgetless.model.sharding import is_sharded, whole
from forgetless.protect.optimizers.attachment import Attachment

_OCTAVES, _FINE, _LEAST = 256, 16, -160  # the bins of log₂ s: from 2^-160 to 2^96, 16 to an octave


@torch.no_grad()
def strength_holding(attachments: Iterable[Attachment], share: float, steps: float) -> float | None:
    """λ at which that share of the anchored weights has `Σ_t s_t ≥ 1`, from the optimizers' present state.

    s is in proportion to λ (and without l2sp), so with u its value at λ = 1 and the peak rate, `λ = 1 / (steps · q)`
    for the q that this share of the weights has as u or more; within 5 %, the width of a bin of their histogram. If
    fewer weights than that matter at all (Ω > 0), q is the least u of those.

    Args:
        attachments: the optimizers, stepped at least once.
        share: in (0, 1].
        steps: how many steps at the peak rate the training is worth.

    Returns:
        λ; None where no weight has an s yet.
    """
    counts, weights = None, 0
    for attachment in attachments:
        for parameter, _, move in attachment.moves(1.0, peak=True):
            if move is None:
                continue
            found = _counted(parameter, [_histogram(ratio) for ratio in move.ratios()])
            counts = found.cpu() if counts is None else counts + found.cpu()
            weights += parameter.numel()
    if counts is None or not bool(counts.any()):
        return None
    held = counts.flip(0).cumsum(0)  # how many weights are in a bin or in one above it
    reached = (held >= share * weights).nonzero()
    last = int(reached[0]) if len(reached) else int(counts.flip(0).nonzero()[-1])
    return float(2.0 ** -(_LEAST + (len(counts) - 0.5 - last) / _FINE) / steps)


def _histogram(ratio: Tensor) -> Tensor:
    """How many of these s are in each bin, `[256 · 16]`; those that are 0 in none."""
    logs = ratio.float().log2().clamp(_LEAST, _LEAST + _OCTAVES - 1e-3)[ratio > 0]
    return torch.histc(logs, _OCTAVES * _FINE, _LEAST, _LEAST + _OCTAVES)


def _counted(parameter: Tensor, parts: list[Tensor]) -> Tensor:
    """The histograms' sum, in float64; of a sharded parameter that of all processes."""
    total = torch.stack(parts).sum(0, dtype=torch.float64) if parts else torch.zeros(_OCTAVES * _FINE).double()
    if not is_sharded(parameter):
        return total
    from torch.distributed.tensor import DTensor, Partial

    mesh = parameter.device_mesh  # type: ignore[attr-defined]
    return whole(DTensor.from_local(total, mesh, [Partial()] * mesh.ndim, run_check=False))
