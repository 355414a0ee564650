"""`forgetless.mas` on every problem of the open list, and what any implementation of MAS must meet."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import forgetless
from exactness import errors, unchanged, worst
from forgetless import Importance
from forgetless.measure.verify.kinks import on_a_kink, without
from forgetless.model.outputs import Output
from problems import PROBLEMS, Problem

EXACT = 1e-10  # float64, of the layer's largest
SINGLE = 5e-6  # float32, layers and uses
WHOLE = 2e-5  # float32, whole networks, against the float32 loop, where no activation sits on a kink


# What no rule serves: measured one sample at a time, and said so. All other problems take the fast path.
ONE_AT_A_TIME = {
    "Conv1d, padding 'same', even kernel": "no rule for conv1d",
    "Conv2d, padding 'same', even kernel": "no rule for conv2d",
    "Conv3d, padding 'same', even kernel": "no rule for conv3d",
    "Embedding, scaled by frequency": "no rule for embedding",
    "EmbeddingBag, max": "no rule for embedding_bag",
    "F.linear to one number": "no rule for linear",
    "a kernel by F.conv2d without a sample axis": "no rule for conv2d",
    "rows by gather": "no rule for gather",
    "a token by masked_scatter": (
        "no rule for masked_scatter; which rows belong to which sample is not known after masked_scatter"
    ),
    "learned queries that attend to themselves first": "no rule for scaled_dot_product_attention",
    "written through .data": "no rule for mul",
    "a bias that the sample makes": "no rule for linear; which rows belong to which sample is not known after linear",
    "padding in place": "__setitem__ writes to what is made of parameters",
    "a matrix for every sample, sorted": "no rule for bmm",
    "shifted over the padding between samples": "which rows belong to which sample is not known after add",
    "slots that are partly filled": "which rows belong to which sample is not known after a reduction over samples",
    "a gradient inside": "gradients are taken inside of the forward pass",
    "joined to a memory": "no rule for cat; which rows belong to which sample is not known after cat",
    "an activation in place on a weight": "elu writes to what is made of parameters",
    "squeezed in place": "which rows belong to which sample is not known after squeeze_",
    "a weight that is changed in place": "add_ writes to what is made of parameters",
    "distinct words computed once": "which rows belong to which sample is not known after unique",
}


def measured(model: nn.Module, batch: Any, **options: Any) -> Importance:
    """Measured without the warnings that tell what a measurement costs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return forgetless.mas(model, batch, progress=False, **options)


def made(problem: Problem, dtype: torch.dtype) -> tuple[nn.Module, Any, dict[str, Any]]:
    """The problem, skipped where the package of its network is not installed."""
    if problem.needs is not None:
        pytest.importorskip(problem.needs, reason=f"{problem.needs} is not installed: pip install {problem.needs}")
    return problem.make(dtype)


def beyond_rounding(problem: Problem, found: Importance, expected: Importance, tolerance: float) -> list[str]:
    """The parameters that are farther from the float32 loop than they may be.

    Where mathematics says 0 (the bias of attention keys, by float64) the loop's value is nothing but its own rounding,
    of a size that depends on the processor: what is found there must not be twice as far from the truth.
    """
    model, batch, options = made(problem, torch.float64)
    truth = forgetless.reference.mas(model, batch, **options).sums
    zero = 1e-12 * max(float(total.abs().max()) for total in truth.values())
    beyond = []
    for name, gap in errors(found, expected).items():
        off, own = (float((each.sums[name] - truth[name]).abs().max()) for each in (found, expected))
        if gap > tolerance and not (float(truth[name].abs().max()) <= zero and off <= 2 * own):
            beyond.append(name)
    return beyond


def test_problems_have_names_of_their_own() -> None:
    names = [problem.name for problem in PROBLEMS]
    assert len(set(names)) == len(names)


def test_the_page_of_exactness_has_every_problem() -> None:
    page = (Path(__file__).parents[3] / "docs" / "exactness.md").read_text(encoding="utf-8")
    missing = [problem.name for problem in PROBLEMS if f"| {problem.name} |" not in page]
    assert not missing, "make it anew: PYTHONPATH=tests/support python -m problems > docs/exactness.md"


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_float64_equals_one_sample_at_a_time(problem: Problem) -> None:
    model, batch, options = made(problem, torch.float64)
    expected = forgetless.reference.mas(model, batch, **options)
    with unchanged(model), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = forgetless.mas(model, batch, progress=False, **options)
    told = [str(warning.message) for warning in caught if "one sample at a time" in str(warning.message)]
    assert bool(told) == (problem.name in ONE_AT_A_TIME), told
    assert all(f"({ONE_AT_A_TIME[problem.name]})" in sentence for sentence in told), told
    assert worst(found, expected) <= (WHOLE if problem.half_exact else EXACT), errors(found, expected)


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_float32_equals_one_sample_at_a_time(problem: Problem) -> None:
    model, batch, options = made(problem, torch.float32)
    tolerance = WHOLE if problem.kind == "network" else SINGLE
    expected = forgetless.reference.mas(model, batch, **options)
    with unchanged(model):
        found = measured(model, batch, **options)
    if worst(found, expected) <= tolerance or not beyond_rounding(problem, found, expected, tolerance):
        return
    # What deviates must be a kink: samples whose activations fall on its other side in a batch are named and left out,
    # and without them the numbers must agree.
    function = Output(options.get("output"), options.get("forward"))
    kinked = on_a_kink(lambda piece: function.tensors(model, piece), batch)
    assert kinked, errors(found, expected)
    batch = without(batch, kinked)
    found, expected = measured(model, batch, **options), forgetless.reference.mas(model, batch, **options)
    assert worst(found, expected) <= tolerance, errors(found, expected)
