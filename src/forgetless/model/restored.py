"""Measuring leaves no trace: whatever it changes in a model is put back, also after an exception."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from forgetless.model.sharding import is_sharded, shards_of


@contextlib.contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients inside; outside, the model bit for bit as it was found.

    Put back: every module's mode, every buffer (the tensor and its values), every parameter's values, `requires_grad`
    and `.grad`, and the state of the random generators. Values are copied only where a module could write them in
    eval mode (buffers, and embeddings with `max_norm`). What is compiled inside runs as the original does.
    """
    modes = [(module, module.training) for module in model.modules()]
    buffers = [
        (module, name, buffer)
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    parameters = list(model.parameters())
    flags = [(parameter, parameter.requires_grad, parameter.grad) for parameter in parameters]
    renormalized = [
        module.weight
        for module in model.modules()
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.max_norm is not None
    ]
    written = [buffer for _, _, buffer in buffers] + renormalized
    copies = [(tensor, tensor.detach().clone(), tensor._version) for tensor in written]
    devices = sorted({p.device.index or 0 for p in parameters if p.device.type == "cuda"})
    try:
        with torch.random.fork_rng(devices=devices), torch.enable_grad(), _uncompiled(model), _uncached():
            model.eval()
            for parameter in parameters:
                parameter.grad = None
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for module, name, buffer in buffers:
            module._buffers[name] = buffer
        with torch.no_grad():
            for tensor, copy, version in copies:
                # Batch norm writes its statistics without telling the version counter.
                if tensor._version != version or not torch.equal(tensor, copy):
                    tensor.copy_(copy)
        for parameter, required, gradient in flags:
            parameter.requires_grad_(required)
            parameter.grad = gradient


def _uncompiled(model: nn.Module) -> contextlib.AbstractContextManager[object]:
    """Inside, modules of the model that `torch.compile` has wrapped run as they were written."""
    for module in model.modules():
        if type(module).__name__ == "OptimizedModule" or getattr(module, "_compiled_call_impl", None) is not None:
            stance = getattr(torch.compiler, "set_stance", None)  # not before torch 2.6
            return contextlib.nullcontext() if stance is None else stance("force_eager")
    return contextlib.nullcontext()


@contextlib.contextmanager
def _uncached() -> Iterator[None]:
    """Inside, autocast keeps no copies of weights: one made without a gradient would serve the user's next step too."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


@contextlib.contextmanager
def only(tracked: Iterator[Tensor] | list[Tensor], model: nn.Module) -> Iterator[None]:
    """Inside, only the `tracked` parameters of `model` require a gradient."""
    wanted = {id(each) for parameter in tracked for each in (parameter, *shards_of(parameter))}
    present = [each for parameter in model.parameters() for each in (parameter, *shards_of(parameter))]
    before = [(parameter, parameter.requires_grad) for parameter in present]
    try:
        for parameter, _ in before:
            parameter.requires_grad_(id(parameter) in wanted)
        yield
    finally:
        for parameter, required in before:
            parameter.requires_grad_(required)


@contextlib.contextmanager
def in_float64(model: nn.Module) -> Iterator[Callable[[Tensor], Tensor]]:
    """Inside, the model computes in float64; outside, its parameters and buffers are the very same memory as before.

    Yields what makes an input fit. FSDP gathers sharded parameters in their own dtype, so nothing of such a model is
    changed.
    """
    if any(is_sharded(parameter) or shards_of(parameter) for parameter in model.parameters()):
        yield lambda tensor: tensor
        return
    parameters = [(parameter, parameter.data) for parameter in model.parameters()]
    buffers = [
        (module, name, buffer)
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and buffer.is_floating_point()
    ]
    try:
        for parameter, values in parameters:
            if values.is_floating_point():
                parameter.data = values.double()
        for module, name, buffer in buffers:
            module._buffers[name] = buffer.double()
        yield lambda tensor: tensor.double() if tensor.is_floating_point() else tensor
    finally:
        for parameter, values in parameters:
            parameter.data = values
        for module, name, buffer in buffers:
            module._buffers[name] = buffer
