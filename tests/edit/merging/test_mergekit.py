"""The same inputs give the same outputs as mergekit's, to rounding, where it is installed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from forgetless.edit.merging import METHODS
from forgetless.edit.merging.parts.deltas import draw, kept

pytest.importorskip("mergekit", reason="mergekit is not installed (pip install mergekit)")

WEIGHTS, DENSITIES = [0.5, 1.0, -0.3], [0.2, 0.5, 0.9]
#: mergekit's name, ours, what mergekit is told, what ours is.
CASES: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("linear", "mean", {}, {}),
    ("linear", "mean", {"normalize": False}, {"normalize": False}),
    ("task_arithmetic", "task-arithmetic", {"lambda": 0.7}, {"scale": 0.7}),
    ("task_arithmetic", "task-arithmetic", {"normalize": True}, {"scale": 1.0, "normalize": True}),
    ("ties", "ties", {"density": DENSITIES}, {"density": DENSITIES}),
    ("ties", "ties", {"density": DENSITIES, "normalize": False}, {"density": DENSITIES, "normalize": False}),
    ("dare_ties", "dare-ties", {"density": DENSITIES}, {"density": DENSITIES, "scale": 1.0, "rescale": "l1"}),
    ("dare_linear", "dare-linear", {"density": DENSITIES}, {"density": DENSITIES, "scale": 1.0, "rescale": "l1"}),
    (
        "dare_ties",
        "dare-ties",
        {"density": DENSITIES, "rescale": False, "normalize": True},
        {"density": DENSITIES, "scale": 1.0, "rescale": "none", "normalize": True},
    ),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("theirs", "ours", "told", "given"), CASES)
def test_equal(
    theirs: str,
    ours: str,
    told: dict[str, Any],
    given: dict[str, Any],
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mergekit.merge_methods.api import merge_tensors

    torch.manual_seed(0)
    base = torch.randn(37, 53, dtype=dtype)
    versions = [base + 0.1 * torch.randn(37, 53, dtype=dtype) for _ in range(3)]
    method = METHODS[ours]
    # What is dropped is drawn by other generators: theirs gets our masks, model by model.
    drawn = iter([kept(base.shape, density, draw(0, "", k)) for k, density in enumerate(DENSITIES)])

    def bernoulli(probability: Tensor, **_: Any) -> Tensor:
        return next(drawn).to(probability.dtype)

    monkeypatch.setattr(torch, "bernoulli", bernoulli)
    tensors = versions if theirs == "linear" else [base, *versions]
    at = {} if theirs == "linear" else {"base_index": 0}
    expected = merge_tensors(tensors, theirs, parameters={"weight": WEIGHTS, **told}, **at)
    settings = method.told(3, WEIGHTS, **given)
    found = method.merge(versions, base if method.needs_base else None, None, settings)
    # DARE of theirs is computed in float32 whatever the inputs are.
    error = 1e-6 if dtype == torch.float32 or "dare" in theirs else 1e-14
    torch.testing.assert_close(found, expected, rtol=0, atol=error)
