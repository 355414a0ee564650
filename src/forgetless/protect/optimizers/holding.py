"""At which strength do the pulls of a whole training hold a given share of the movement, or of the weights?"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from forgetless.model.sharding import is_sharded, whole
from forgetless.protect.optimizers.attachment import Attachment

_OCTAVES, _FINE, _LEAST = 256, 16, -160  # the bins of log₂ s: from 2^-160 to 2^96, 16 to an octave


@torch.no_grad()
def strength_holding(
    attachments: Iterable[Attachment], share: float, steps: float, moved: float | None = None, strength: float = 0.0
) -> float | None:
    """λ at which that share of the movement, or of the weights, has `Σ_t s_t ≥ 1`, from the optimizers' present state.

    s is in proportion to λ (and without l2sp), so with u its value at λ = 1 and the peak rate, `λ = 1 / (steps · q)`
    for the q that this share has as u or more; within 5 %, the width of a bin of the histogram of u. If less than that
    matters at all (Ω > 0), q is the least u of what does.

    In that histogram a weight counts by how far it would have gone unprotected, `|θ − θ*| (1 + λ u · moved)`: a weight
    that drifts evenly gets `1 / (1 + S)` of its way under pulls that add up to S.

    Args:
        attachments: the optimizers, stepped at least once.
        share: in (0, 1].
        steps: how many steps at the peak rate the training is worth.
        moved: the steps since θ* was set; None to let every weight count alike.
        strength: λ in those steps.

    Returns:
        λ; None where no weight has an s yet, none has moved, or one has become NaN or Inf.
    """
    every = None
    for attachment in attachments:
        for parameter, _, move in attachment.moves(1.0, peak=True):
            if move is None:
                continue
            parts = []
            for ratio, distance in zip(move.ratios(), move.distances(), strict=True):
                ratio.clamp_(
                    max=2.0 ** (_LEAST + _OCTAVES)
                )  # finite, for a weight that stood still counts 0 times that
                weight = torch.ones_like(distance) if moved is None else distance * (1 + strength * moved * ratio)
                parts.append(torch.cat([_histogram(ratio, weight), weight.sum()[None]]))
            found = _counted(parameter, parts)
            every = found if every is None else every + found
    if every is None:
        return None
    counts, total = every[:-1], float(every[-1])
    if not bool(counts.any()) or not math.isfinite(total):
        return None
    held = counts.flip(0).cumsum(0)  # how much is in a bin or in one above it
    reached = (held >= share * total).nonzero()
    last = int(reached[0]) if len(reached) else int(counts.flip(0).nonzero()[-1])
    return float(2.0 ** -(_LEAST + (_OCTAVES * _FINE - 0.5 - last) / _FINE) / steps)


def _histogram(ratio: Tensor, weight: Tensor) -> Tensor:
    """How much has its s in each bin, `[256 · 16]`; what has an s of 0 in none."""
    some = ratio > 0
    logs = ratio[some].float().log2().clamp(_LEAST, _LEAST + _OCTAVES - 1e-3)
    bins = ((logs - _LEAST) * _FINE).long()
    return torch.bincount(bins, weight[some], _OCTAVES * _FINE).to(weight.dtype)


def _counted(parameter: Tensor, parts: list[Tensor]) -> Tensor:
    """The sum of the histograms and of what they are of, in float64 on the CPU; of a sharded parameter that of all."""
    if not is_sharded(parameter):
        return torch.stack(parts).cpu().double().sum(0)  # there, for not every device has float64
    total = torch.stack(parts).double().sum(0) if parts else torch.zeros(_OCTAVES * _FINE + 1).double()
    from torch.distributed.tensor import DTensor, Partial

    mesh = parameter.device_mesh  # type: ignore[attr-defined]
    return whole(DTensor.from_local(total, mesh, [Partial()] * mesh.ndim, run_check=False)).cpu()
