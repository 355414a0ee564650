"""Passes: `Σ_n |∂s_n/∂θ|^power` of one batch, in one backward pass under the `Tape`, or one sample at a time."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from forgetless.measure.engine.tape import Tape
from forgetless.measure.engine.target import Target
from forgetless.measure.kernels.parts.terms import modulus_
from forgetless.model import batches
from forgetless.model.restored import only, unhooked


def batched_sums(
    target: Target,
    batch: Any,
    into: dict[str, Tensor] | None = None,
    watched: int | None = None,
) -> tuple[dict[str, Tensor], Tensor, Tape]:
    """`Σ_n |∂s_n/∂θ|^power` of a batch in one backward pass: sums by name (only of what took part), s, and the tape.

    The sums are added to `into` in place, where given: float32 or wider, and with no copy of the parameters' size. It
    stays as it is where an operation without a rule was met, or a scalar is NaN or Inf. Of a sample that is `watched`
    the tape keeps a sketch of the gradients.
    """
    sums: dict[str, Tensor] = {} if into is None else into

    def deposit(name: str, total: Tensor) -> None:
        sums[name] = total if total is sums.get(name) else _own(total)

    tape = Tape(target.parameters, batch, target.power, deposit, into, watched)
    return sums, taped(tape, target, batch, strict=into is not None), tape


def taped(tape: Tape, target: Target, batch: Any, *, strict: bool) -> Tensor:
    """One pass under the tape; gives the scalars. Backward too, or with `strict` only where all is well."""
    parameters = list(target.parameters.values())
    with only(parameters, target.module), unhooked(parameters), contextlib.closing(tape), tape:
        values = target.values(batch)
        tape.end(values)
        if values.requires_grad:
            tape.unruled = {**tape.escaped(values), **tape.unruled}
        well = not strict or (not tape.unruled and bool(torch.isfinite(values).all()))
        if values.requires_grad and well:
            values.sum().backward()  # type: ignore[no-untyped-call]
    for parameter in parameters:
        parameter.grad = None  # what an operation without a rule has left
    return values.detach()


def _own(total: Tensor) -> Tensor:
    """A sum that may be added to: dense, float32 or wider."""
    total = total.detach().to(wide(total))
    channels_last = total.dim() == 4 and total.is_contiguous(memory_format=torch.channels_last)
    return total if channels_last else total.contiguous()


def single_sums(target: Target, batch: Any) -> tuple[dict[str, Tensor], Tensor]:
    """The same, one sample at a time: exact for every network."""
    sums: dict[str, Tensor] = {}
    values = []
    parameters = list(target.parameters.values())

    def add(name: str, gradient: Tensor) -> None:
        dense = gradient.to_dense() if gradient.is_sparse else gradient
        moduli = modulus_(dense.abs() if dense.is_complex() else dense, target.power)
        sums[name] = sums[name].add_(moduli) if name in sums else moduli

    taking = _taking(target.parameters, add)
    with only(parameters, target.module), unhooked(parameters), _differentiable(target), taking as taken:
        for n in range(batches.size(batch)):
            row = batches.rows(batch, n, n + 1)
            value = target.values(row if n else batches.mapped(row, Tensor.clone))  # a model may write to it
            values.append(value.detach())
            if value.requires_grad and taken:
                value.sum().backward()  # type: ignore[no-untyped-call]
            elif value.requires_grad:
                gradients = torch.autograd.grad(value.sum(), parameters, allow_unused=True)
                for name, gradient in zip(target.parameters, gradients, strict=True):
                    if gradient is not None:
                        add(name, gradient.clone())  # it may be another parameter's too
    return sums, torch.cat(values)


def alone(target: Target, sample: Any) -> tuple[dict[str, Tensor], Tensor]:
    """The gradients of a batch of one by name, of what took part, and its scalar `[1]`."""
    parameters = list(target.parameters.values())
    found: dict[str, Tensor] = {}
    taking = _taking(target.parameters, found.__setitem__)
    with only(parameters, target.module), unhooked(parameters), _differentiable(target), taking as taken:
        value = target.values(sample)
        if value.requires_grad and taken:
            value.sum().backward()  # type: ignore[no-untyped-call]
        elif value.requires_grad:
            gradients = torch.autograd.grad(value.sum(), parameters, allow_unused=True)
            named = zip(target.parameters, gradients, strict=True)
            found = {name: gradient for name, gradient in named if gradient is not None}
    return {name: g.to_dense() if g.is_sparse else g for name, g in found.items()}, value.detach()


def accumulate(into: dict[str, Tensor], sums: Mapping[str, Tensor]) -> None:
    """Add `sums` to `into`, by name, in float32 or wider."""
    for name, total in sums.items():
        widened = total.detach().to(wide(total))
        into[name] = into[name].add_(widened) if name in into else widened.clone()


def wide(tensor: Tensor) -> torch.dtype:
    """The dtype that sums of such a tensor have."""
    return torch.float64 if tensor.dtype in (torch.float64, torch.complex128) else torch.float32


@contextlib.contextmanager
def _differentiable(target: Target) -> Iterator[None]:
    """Inside, recurrent layers have a backward pass in eval mode too, which those of cuDNN have not."""
    before = torch.backends.cudnn.enabled
    if any(isinstance(module, torch.nn.RNNBase) for module in target.module.modules()):
        torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = before


@contextlib.contextmanager
def _taking(parameters: Mapping[str, Tensor], add: Callable[[str, Tensor], None]) -> Iterator[bool]:
    """Inside, a backward pass gives every gradient away as soon as it is there, so that they are never all in memory.

    Yields whether that can be: not where DDP or FSDP wait for the gradients.
    """
    if not all(parameter.is_leaf for parameter in parameters.values()) or _several_processes():
        yield False
        return

    def take(name: str, parameter: Tensor) -> None:
        gradient, parameter.grad = parameter.grad, None
        if gradient is not None:
            add(name, gradient)

    handles = [
        parameter.register_post_accumulate_grad_hook(functools.partial(take, name))  # type: ignore[no-untyped-call]
        for name, parameter in parameters.items()
    ]
    try:
        yield True
    finally:
        for handle in handles:
            handle.remove()


def _several_processes() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
