"""At which strength do the pulls of a whole training hold a given share of the movement, or of the weights?"""

from __future__ import annotations

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
        λ; None where no weight has an s yet, or none has moved.
    """
    counts = None
    for attachment in attachments:
        for parameter, _, move in attachment.moves(1.0, peak=True):
            if move is None:
                continue
            parts, whole_of = list[Tensor](), list[Tensor]()
            for ratio, distance in zip(move.ratios(), move.distances(), strict=True):
                weight = torch.ones_like(distance) if moved is None else distance * (1 + strength * moved * ratio)
                parts.append(_histogram(ratio, weight))
                whole_of.append(weight.sum(dtype=torch.float64))
            found = _counted(parameter, [torch.cat([each, of[None]]) for each, of in zip(parts, whole_of, strict=True)])
            counts = found.cpu() if counts is None else counts + found.cpu()
    if counts is None:
        return None
    counts, total = counts[:-1], float(counts[-1])
    if not bool(counts.any()):
        return None
    held = counts.flip(0).cumsum(0)  # how much is in a bin or in one above it
    reached = (held >= share * total).nonzero()
    last = int(reached[0]) if len(reached) else int(counts.flip(0).nonzero()[-1])
    return float(2.0 ** -(_LEAST + (_OCTAVES * _FINE - 0.5 - last) / _FINE) / steps)


def _histogram(ratio: Tensor, weight: Tensor) -> Tensor:
    """How much has its s in each bin, `[256 · 16]`, float64; what has an s of 0 in none."""
    some = ratio > 0
    logs = ratio[some].float().log2().clamp(_LEAST, _LEAST + _OCTAVES - 1e-3)
    bins = ((logs - _LEAST) * _FINE).long()
    return torch.bincount(bins, weight[some].double(), _OCTAVES * _FINE)


def _counted(parameter: Tensor, parts: list[Tensor]) -> Tensor:
    """The sum of the histograms and of what they are of, in float64; of a sharded parameter that of all processes."""
    total = torch.stack(parts).sum(0) if parts else torch.zeros(_OCTAVES * _FINE + 1).double()
    if not is_sharded(parameter):
        return total
    from torch.distributed.tensor import DTensor, Partial

    mesh = parameter.device_mesh  # type: ignore[attr-defined]
    return whole(DTensor.from_local(total, mesh, [Partial()] * mesh.ndim, run_check=False))
