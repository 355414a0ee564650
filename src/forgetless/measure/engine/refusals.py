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


def unfit(target: Target, pair: Any, error: Exception) -> str | None:
    """Why the model cannot compute two samples, or one alone; `None` if it can, so that the error is none of its own.

    Args:
        target: what is measured, of a model in eval mode.
        pair: two samples.
        error: what was raised when they were tried.
    """
    reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
    shapes = ", ".join(str(tuple(tensor.shape)) for tensor in batches.tensors(pair))
    if not _runs(target, pair):
        return f"{type(target.module).__name__} does not take the first batch (inputs of shape {shapes}): {reason}."
    if _runs(target, batches.rows(pair, 0, 1)):
        return None
    for name, module in target.module.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            where = f"{name!r} ({type(module).__name__})"
            return f"what {where} computes for a sample depends on the other samples of its batch, {WAY_OUT}"
    return f"{type(target.module).__name__} takes two samples and not one alone ({reason}), {WAY_OUT}"


def coupling(target: Target, pair: Any, tolerance: float) -> str:
    """The sentence that names the first module in which the samples of a batch influence each other."""
    traces: list[list[tuple[str, nn.Module, Tensor | None, Tensor | None]]] = [[], []]
    for trace, batch in zip(traces, (pair, batches.rows(pair, 0, 1)), strict=True):

        def note(name: str, module: nn.Module, given: Any, result: Any, trace: list[Any] = trace) -> None:
            trace.append((name, module, _first(given), _first(result)))

        _visit(target, batch, note)
    for (name, module, given, result), (_, _, given_alone, result_alone) in zip(*traces, strict=False):
        if _same(given, given_alone, tolerance) and not _same(result, result_alone, tolerance):
            where = f"{name!r} ({type(module).__name__})" if name else type(module).__name__
            break
    else:
        where = type(target.module).__name__
    return (
        f"what {where} computes for a sample depends on the other samples of its batch or on chance, even in eval "
        f"mode, {WAY_OUT}"
    )


def overflow(target: Target, batch: Any) -> str:
    """The sentence that names the first module whose output is NaN or Inf."""
    found: list[str] = []

    def look(name: str, module: nn.Module, given: Any, result: Any) -> None:
        floats = [tensor for tensor in batches.tensors(result) if tensor.is_floating_point()]
        if not found and not all(bool(torch.isfinite(tensor).all()) for tensor in floats):
            found.append(f"the output of {name!r} ({type(module).__name__})" if name else "the output")

    _visit(target, batch, look)
    where = found[0] if found else "the squared norm of the output"
    return f"{where} is NaN or Inf for these inputs; in float16 use bfloat16 or float32, else check their scale."


def _visit(target: Target, batch: Any, seen: Callable[[str, nn.Module, Any, Any], None]) -> None:
    """Run the model, and call `seen` with every module's name, itself, its inputs and its output, as they are made."""
    handles = [
        module.register_forward_hook(functools.partial(seen, name)) for name, module in target.module.named_modules()
    ]
    try:
        with torch.no_grad():
            target.values(batch)
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
        with torch.no_grad():
            target.values(batch)
    except ForgetlessError:
        raise
    except Exception:
        return False
    return True
