"""Ω on a scale on which one λ means about the same for every output scale, width and unit of the weights."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import nn

from forgetless.errors import ForgetlessError
from forgetless.measure.importance import Importance
from forgetless.model import batches, documents
from forgetless.model.collation import Collate
from forgetless.model.masks import Mask
from forgetless.model.outputs import Forward, Output, Select
from forgetless.model.parameters import unwrapped
from forgetless.model.restored import untouched

_ENOUGH = 256  # samples


def normalized(
    importance: Importance,
    model: nn.Module,
    data: Any,
    *,
    output: Select = None,
    forward: Forward | None = None,
    mask: Mask = "auto",
    collate_fn: Collate | None = None,
    samples: int = _ENOUGH,
) -> Importance:
    """The importance with `Ω ← Ω · ΣΩ / (mean ‖F‖²)²`, the sum over all of its parameters.

    To first order `ΣΩ|Δ|` is no less than the mean change of ‖F‖², so `r = ΣΩ|Δ| / mean ‖F‖²` is that change relative
    to ‖F‖² itself; and `r² ≤ ΣΩ · ΣΩΔ² / (mean ‖F‖²)²` (Cauchy and Schwarz). So a strength of λ on the normalized scale
    asks at least `λ r²` of the loss for a relative change of r: a pure number, whatever the scale of the outputs and
    the unit of the weights, and nearly so over widths (docs/strength.md has the study). λ of the paper's scale, which
    stays the default, times `(mean ‖F‖²)² / ΣΩ` is λ of this one.

    Args:
        importance: as `forgetless.mas` measured it.
        model: the network it was measured on; left unchanged.
        data: samples of the same kind; see `forgetless.mas`.
        output: which tensors of the model's output are F, as in the measurement.
        forward: (model, batch) → output, as in the measurement.
        mask: which positions of F count, as in the measurement.
        collate_fn: a list of samples → a batch; see `forgetless.mas`.
        samples: how many to take for the mean of ‖F‖², the first ones.

    Returns:
        A new importance; the one given is not changed. Its estimator says that it is normalized, so that it does not
        merge with one that is not; consolidating several in one anchor is what it is for.

    Raises:
        ForgetlessError: no data, an output that is 0 everywhere, an importance that is, or one normalized already.
    """
    if importance.estimator.endswith("normalized"):
        raise ForgetlessError("the importance is normalized already.")
    total = math.fsum(float(sums.sum(dtype=torch.float64)) for sums in importance.sums.values()) / importance.count
    if not total:
        raise ForgetlessError("the importance is 0 everywhere, so that it has no scale.")
    given: dict[str, Any] = {"output": output, "forward": forward, "mask": mask, "collate_fn": collate_fn}
    size = mean_squared_norm(model, data, samples=samples, **given)
    if not size:
        raise ForgetlessError("the model's output is 0 on all of the data, so that it has no scale.")
    scale = total / size**2
    sums = {name: sums * scale for name, sums in importance.sums.items()}
    return dataclasses.replace(importance, sums=sums, estimator=f"{importance.estimator}, normalized", confidence=None)


def mean_squared_norm(
    model: nn.Module,
    data: Any,
    *,
    output: Select = None,
    forward: Forward | None = None,
    mask: Mask = "auto",
    collate_fn: Collate | None = None,
    samples: int = _ENOUGH,
) -> float:
    """The mean of `‖F(x)‖²` over the first samples: what a budget of `ΣΩ|θ − θ*|` is to be held against.

    Args:
        model: any module; left unchanged.
        data: see `forgetless.mas`.
        output: which tensors of the model's output are F.
        forward: (model, batch) → output, where `model(inputs)` is not the way.
        mask: which positions of F count; see `forgetless.mas`.
        collate_fn: a list of samples → a batch; see `forgetless.mas`.
        samples: how many to take, the first ones.

    Raises:
        ForgetlessError: no data, or an output that is not finite.
    """
    function = Output(output, forward, mask)
    total, count = 0.0, 0
    inner = unwrapped(model)
    with untouched(inner), torch.no_grad():
        device = next(inner.parameters()).device
        for batch in batches.of(data, 32, collate_fn):
            for piece, _ in documents.unpacked(batch, full=0):
                for start in range(0, min(batches.size(piece), samples - count), 32):
                    stop = min(start + 32, batches.size(piece), start + samples - count)
                    rows = batches.mapped(batches.rows(piece, start, stop), lambda tensor: tensor.to(device))
                    total += float(function.squared_norms(inner, rows).sum(dtype=torch.float64))
                    count += stop - start
            if count >= samples:
                break
    if not count:
        raise ForgetlessError("there is no data to take the scale of the output from.")
    if not math.isfinite(total):
        raise ForgetlessError("the model's output holds NaN or Inf, so that it has no scale.")
    return total / count
