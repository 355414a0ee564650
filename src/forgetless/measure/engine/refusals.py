"""What is said of a model that cannot be measured: sentences that name the place and the way out."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from forgetless.errors import ForgetlessError
from forgetless.measure.engine.distance import distance
from forgetless.measure.engine.target import Target
from forgetless.model import batches

WAY_OUT = (
    "so no sample has an importance of its own; give it running statistics (batch norm), switch its randomness off, or "
    "measure with batch_size=1 if a batch of one is how it is used."
)


def unfit(target: Target, pair: Any, error: Exception, batch: Any = None) -> str | None:
    """Why the model cannot compute two samples, or one alone; `None` if it can, so that the error is none of its own.

    Args:
        target: what is measured, of a model in eval mode.
        pair: two samples.
        error: what was raised when they were tried.
        batch: what they are of, if it is more.
    """
    reason = said(error)
    shapes = shapes_of(pair)
    if not _runs(target, pair):
        return (
            f"{type(target.module).__name__} does not take the first batch (inputs of shape {shapes}): {reason}; "
            f"{_way_in(target, pair if batch is None else batch)}."
        )
    if _runs(target, batches.rows(pair, 0, 1)):
        return None
    for name, module in target.module.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            where = f"{name!r} ({type(module).__name__})"
            return f"what {where} computes for a sample depends on the other samples of its batch, {WAY_OUT}"
    return f"{type(target.module).__name__} takes two samples and not one alone ({reason}), {WAY_OUT}"


def _way_in(target: Target, batch: Any) -> str:
    """What to do about a batch that the model does not take: its dtype, or one axis too few, may be the cause."""
    first = next(batches.tensors(batches.inputs(batch)), None)
    if first is not None and first.dtype == torch.uint8:
        wide = next(iter(target.parameters.values())).dtype
        return f"the inputs are torch.uint8 and the weights {wide}, so convert them first (pictures: x.float() / 255)"
    if first is not None and _runs(target, first.unsqueeze(0)):
        return (
            "it takes a tensor as one sample, so the data are a list of samples: give them as one tensor "
            "(torch.stack), or collate_fn=torch.stack"
        )
    return "if its tensors do not have one row for each sample, give batches of one sample or forward="


def foreign(module: nn.Module, batch: Any, error: BaseException) -> str:
    """The sentence for an error that nothing here has foreseen.

    Args:
        module: the network.
        batch: what was measured.
        error: what was raised.
    """
    return (
        f"{type(module).__name__} cannot be measured on this batch (tensors of shape {shapes_of(batch)}): "
        f"{said(error)}; batch_size=1 or forward= may help, and the error itself is the cause of this one."
    )


def said(error: BaseException) -> str:
    """The first line of what an error says, or its type."""
    try:
        lines = str(error).strip().splitlines()
    except Exception:  # an error whose text cannot be made
        lines = []
    return (
        (f"{type(error).__name__}: " if isinstance(error, LookupError) else "") + lines[0].rstrip(".")[:300]
        if lines
        else type(error).__name__
    )


def shapes_of(batch: Any) -> str:
    """The shapes of a batch's tensors, for a message."""
    try:
        return ", ".join(str(tuple(tensor.shape)) for tensor in batches.tensors(batch)) or "none"
    except Exception:
        return "unknown"


def coupling(target: Target, pair: Any, tolerance: float) -> str:
    """The sentence that names the first module in which the samples of a batch influence each other."""
    try:
        where = _coupling(target, pair, tolerance)
    except Exception:  # a sentence is due, whatever the network does
        where = type(target.module).__name__
    return (
        f"what {where} computes for a sample depends on the other samples of its batch or on chance, even in eval "
        f"mode, {WAY_OUT}"
    )


def _coupling(target: Target, pair: Any, tolerance: float) -> str:
    traces: list[list[tuple[str, nn.Module, Tensor | None, Tensor | None]]] = [[], []]
    for trace, batch in zip(traces, (pair, batches.rows(pair, 0, 1)), strict=True):

        def note(name: str, module: nn.Module, given: Any, result: Any, trace: list[Any] = trace) -> None:
            trace.append((name, module, _first(given), _first(result)))

        _visit(target, batch, note)
    for (name, module, given, result), (_, _, given_alone, result_alone) in zip(*traces, strict=False):
        if _same(given, given_alone, tolerance) and not _same(result, result_alone, tolerance):
            return f"{name!r} ({type(module).__name__})" if name else type(module).__name__
    return type(target.module).__name__


def overflow(target: Target, batch: Any, values: Tensor | None = None, at: tuple[int, int] = (0, 0)) -> str:
    """The sentence that names where the first NaN or Inf is: the inputs, or a module's output and what fits as a cause.

    Args:
        target: what is measured.
        batch: what was measured when it was met.
        values: its scalars, to tell the sample; None where they must all be looked at (in lockstep).
        at: the number of the batch and of its first sample.
    """
    try:
        row, sample = _bad_sample(batch, values)
        return _overflow(target, row, f"batch {at[0]}, sample {at[1] + sample}")
    except Exception:  # a sentence is due, whatever the network does
        return "the output is NaN or Inf for these inputs; check the scale of the inputs, or use a wider dtype."


def _bad_sample(batch: Any, values: Tensor | None) -> tuple[Any, int]:
    """The first row whose scalar is not finite, as a batch, and the number of its sample."""
    if values is None:
        return batch, 0
    row = int((~torch.isfinite(values)).nonzero()[0])
    which = batch.get("which") if isinstance(batch, dict) and batch.keys() == {"samples", "which"} else None
    return batches.rows(batch, row, row + 1), row if which is None else row // len(which.unique())


def _overflow(target: Target, batch: Any, which: str) -> str:
    given = batch["samples"] if isinstance(batch, dict) and "samples" in batch else batch
    spoiled = not all(_finite(each) for each in batches.tensors(batches.inputs(given)))
    found: list[tuple[str, nn.Module, bool, Tensor]] = []

    def look(name: str, module: nn.Module, inputs: Any, result: Any) -> None:
        bad = next((each for each in batches.tensors(result) if not _finite(each)), None)
        if not found and bad is not None:
            found.append((name, module, all(map(_finite, batches.tensors(inputs))), bad.detach()))

    _visit(target, batch, look)
    if spoiled and not (found and found[0][2] and bool(found[0][0])):
        return f"the inputs hold NaN or Inf: {which}; clean the data first."
    if not found:
        return (
            f"the squared norm of the output is NaN or Inf: {which}; its values are too large for their dtype, so "
            "check the scale of the inputs and weights."
        )
    name, module, _, bad = found[0]
    where = f"the output of {name!r} ({type(module).__name__})" if name else "the output"
    return f"{where} is NaN or Inf for these inputs: {which}; {_cause(module, bad)}."


def _cause(module: nn.Module, bad: Tensor) -> str:
    """What makes such a tensor NaN or Inf, as far as it can be told."""
    if bad.dtype == torch.float16:
        return "the largest float16 is 65,504, so in float16 use bfloat16 or float32"
    if not bool(torch.isnan(bad).any()):
        return f"it overflows {str(bad.dtype).removeprefix('torch.')}, so check the scale of the inputs and weights"
    if "attention" in type(module).__name__.lower() or "transformer" in type(module).__name__.lower():
        return "check for a mask that hides every position of a sample"
    return "check for a division by 0, the root or logarithm of a negative number, or a mask that hides every position"


def gradients(name: str, dtype: torch.dtype) -> str:
    """Why the gradients of a parameter cannot be NaN or Inf where every output is finite."""
    if dtype == torch.float16:
        return f"the gradients of {name!r} overflow {dtype}; measure in bfloat16 or float32 (model.float())."
    return (
        f"the gradients of {name!r} are NaN or Inf, though the output is finite: a root, a norm or a power at 0 and a "
        "division by 0 have none, also where a mask hides them, and values far from 1 overflow; keep what goes in "
        "there away from 0."
    )


def _finite(tensor: Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex()) or bool(torch.isfinite(tensor).all())


def _visit(target: Target, batch: Any, seen: Callable[[str, nn.Module, Any, Any], None]) -> None:
    """Run the model, and call `seen` with every module's name, itself, its inputs and its output, as they are made."""
    handles = [
        module.register_forward_hook(functools.partial(seen, name)) for name, module in target.module.named_modules()
    ]
    try:
        target.values(batch)  # with gradients, as it is measured: without them an encoder may take another path
    finally:
        for handle in handles:
            handle.remove()


def _first(value: Any) -> Tensor | None:
    tensor = next(batches.tensors(value), None)
    return None if tensor is None else tensor.detach().clone()


def _same(together: Tensor | None, alone: Tensor | None, tolerance: float) -> bool:
    if together is None or alone is None or together.dim() == 0 or alone.dim() == 0:
        return True
    first = together[: alone.shape[0]]
    if first.shape != alone.shape or not alone.is_floating_point():
        return bool(first.shape == alone.shape)
    return distance(first, alone) <= tolerance


def _runs(target: Target, batch: Any) -> bool:
    try:
        target.values(batch)
    except ForgetlessError:
        raise
    except Exception:
        return False
    return True
