"""What other codes compute under the name of MAS: for comparison only, not for protection.

They take the modulus of a whole batch's gradient, `|Σ_n g_n|`, where Eq. 2 asks for `Σ_n |g_n|`. Gradients
that cancel between samples are lost: Ω is smaller, in another order, and depends on the batch size.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from forgetless.errors import ForgetlessError
from forgetless.measure.importance import Importance
from forgetless.model import batches
from forgetless.model.outputs import Forward, Output, Select
from forgetless.model.parameters import fingerprints, trainable, unwrapped
from forgetless.model.restored import untouched


@dataclass(frozen=True)
class Recipe:
    """How a code differs from Eq. 2.

    Attributes:
        norm: of the output: squared, as in the paper, or not.
        reduction: over the samples of a batch before the gradient is taken; "all" is the mean over outputs too.
        train: whether the network is in train mode: dropout on, batch statistics in use.
        weighing: what a batch's modulus counts, and what the sum is divided by: "batches" counts 1 and divides by their
            number; "samples" counts its samples (where it is of a mean) and divides by all samples; "full" takes every
            batch to be a full one.
        drop_last: whether a last batch that is short is left out.
    """

    norm: Literal["squared", "unsquared"] = "squared"
    reduction: Literal["sum", "mean", "all"] = "sum"
    train: bool = False
    weighing: Literal["batches", "samples", "full"] = "samples"
    drop_last: bool = False


CODES = {
    "authors": Recipe(weighing="full"),
    "avalanche": Recipe(reduction="mean", train=True, weighing="batches"),
    "facil": Recipe("unsquared", "mean", train=True, weighing="samples", drop_last=True),
    "hsu": Recipe(reduction="all", weighing="batches"),
}


def emulate(
    model: nn.Module,
    data: Any,
    code: Literal["authors", "avalanche", "facil", "hsu"] | None = None,
    *,
    batch_size: int = 200,
    norm: Literal["squared", "unsquared"] | None = None,
    reduction: Literal["sum", "mean", "all"] | None = None,
    train: bool | None = None,
    output: Select = None,
    forward: Forward | None = None,
    exclude: str | Iterable[str] = (),
) -> Importance:
    """Measure what another code would: the modulus per *batch*. For comparison only; `forgetless.mas` is exact.

        Ω = 1/N Σ_b |Σ_{n in b} ∂‖F(x_n; θ)‖² / ∂θ|      the modulus per batch, without a code's other habits

    | code | what it computes |
    |---|---|
    | "authors" | gradient of the batch's sum; the last, short batch counts as a full one |
    | "avalanche" | gradient of the batch's mean, train mode; mean over batches |
    | "facil" | gradient of the batch's mean of the norm, not squared, train mode; no short batch |
    | "hsu" | gradient of the mean over batch and outputs; mean over batches |

    How Ω of several tasks is mixed, and how heads are chosen, is not emulated. Train mode draws from torch's random
    generators (dropout); they, the network and its statistics are put back.

    Args:
        model: a trained network.
        data: as for `forgetless.mas`; batches are made anew of `batch_size` samples in the order of the data.
        code: whose recipe to start from; the options change it.
        batch_size: samples that share a modulus; Ω depends on it. 1 is exact.
        norm: "squared" or "unsquared".
        reduction: "sum", "mean" over the batch, or "all": mean over batch and outputs.
        train: whether in train mode.
        output: as for `forgetless.mas`.
        forward: as for `forgetless.mas`.
        exclude: as for `forgetless.mas`.

    Returns:
        An importance whose estimator says that it is emulated, so that it never merges with an exact one.

    Raises:
        ForgetlessError: an unknown code or option, no data, nothing to measure, NaN or Inf.
    """
    recipe = _recipe(code, norm, reduction, train)
    if batch_size < 1:
        raise ForgetlessError(f"batch_size must be at least 1, not {batch_size}.")
    model, function = unwrapped(model), Output(output, forward)
    parameters = trainable(model, exclude)
    if not parameters:
        raise ForgetlessError(f"{type(model).__name__} has no trainable parameter to measure.")
    sums = {name: torch.zeros_like(p, dtype=_wide(p)) for name, p in parameters.items()}
    seen = samples = 0
    used: set[str] = set()
    with untouched(model):
        model.train(recipe.train)
        device = next(iter(parameters.values())).device
        for batch in _regrouped(data, batch_size):
            count = batches.size(batch)
            if recipe.drop_last and count < batch_size:
                continue
            batches.refuse_non_finite(batch, f"batch {seen}")
            batch = batches.mapped(batch, lambda tensor: tensor.to(device))
            value = _value(function, model, batch, recipe)
            if not bool(torch.isfinite(value)):
                raise ForgetlessError("the output is NaN or Inf for these inputs; measure in float32.")
            weight = count if recipe.weighing == "samples" and recipe.reduction != "sum" else 1
            gradients = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    used.add(name)
                    sums[name] += weight * gradient.to_dense().abs().to(sums[name].dtype)
            seen, samples = seen + 1, samples + count
    if not samples:
        raise ForgetlessError("the data hold no (full) batch, so there is nothing to measure importance on.")
    count = {"batches": seen, "samples": samples, "full": seen * batch_size}[recipe.weighing]
    name = f"emulated: {code or 'modulus per batch'}, {batch_size} samples a batch"
    unused = tuple(each for each in parameters if each not in used)
    return Importance(sums, count, name, fingerprints(parameters), unused)


def _recipe(code: str | None, norm: str | None, reduction: str | None, train: bool | None) -> Recipe:
    if code is not None and code not in CODES:
        raise ForgetlessError(f"there is no recipe of {code!r}; there are {', '.join(map(repr, CODES))}.")
    recipe = copy.copy(CODES[code]) if code else Recipe()
    if norm not in (None, "squared", "unsquared"):
        raise ForgetlessError(f'norm must be "squared" or "unsquared", not {norm!r}.')
    if reduction not in (None, "sum", "mean", "all"):
        raise ForgetlessError(f'reduction must be "sum", "mean" or "all", not {reduction!r}.')
    given = {"norm": norm, "reduction": reduction, "train": train}
    return replace(recipe, **{key: value for key, value in given.items() if value is not None})  # type: ignore[arg-type]


def _value(function: Output, model: nn.Module, batch: Any, recipe: Recipe) -> Tensor:
    """The one number of a batch whose gradient is taken."""
    outputs = torch.cat([tensor.flatten(1) for tensor in function.tensors(model, batch)], 1)
    norms = outputs.square().sum(1)
    values = norms if recipe.norm == "squared" else norms.sqrt()
    if recipe.reduction == "all":
        return values.mean() / outputs.shape[1]
    return values.sum() if recipe.reduction == "sum" else values.mean()


def _regrouped(data: Any, batch_size: int) -> Iterator[Any]:
    """Batches of `batch_size` samples: of a tensor, tuple, dict or Dataset; an iterable's own, cut where longer."""
    for batch in batches.of(data, batch_size if isinstance(data, Dataset) else None):
        for start in range(0, batches.size(batch), batch_size):
            yield batches.rows(batch, start, min(start + batch_size, batches.size(batch)))


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)
