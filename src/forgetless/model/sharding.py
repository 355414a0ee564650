"""Tensors that are spread over processes (DTensors): whole, local, written to a file once, sharded like another."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

SHARD = "_forgetless_shard"  # on a gathered parameter, while it is measured: the DTensor it was gathered from


def is_sharded(tensor: Tensor) -> bool:
    """Whether it is a DTensor, of which this process has a part."""
    return hasattr(tensor, "full_tensor")


def sharding(tensor: Tensor) -> tuple[Any, ...] | None:
    """Over what and how a DTensor is spread, (mesh, placements); None for any other tensor."""
    return (tensor.device_mesh, tensor.placements) if is_sharded(tensor) else None  # type: ignore[attr-defined]


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor; of a DTensor every rank must ask for it, in the same order."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def local(tensor: Tensor) -> Tensor:
    """What this process has of a tensor; it shares the memory."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def writes(tensors: Mapping[str, Tensor]) -> bool:
    """Whether this process is the one that writes `tensors` to a file: the first of those that share them."""
    mesh = next((each.device_mesh for each in tensors.values() if is_sharded(each)), None)  # type: ignore[attr-defined]
    return mesh is None or dist.get_rank() == int(mesh.mesh.flatten()[0])


@contextlib.contextmanager
def written_once(tensors: Mapping[str, Tensor]) -> Iterator[bool]:
    """Whether this process writes `tensors`; those that share them leave together."""
    try:
        yield writes(tensors)
    finally:
        if any(is_sharded(tensor) for tensor in tensors.values()):
            dist.barrier()


def sharded_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A whole `tensor`, which every rank has, sharded as `parameter` is; no rank sends anything.

    What is sharded already, or like a parameter that is not, stays as it is.
    """
    spread = sharding(parameter)
    if spread is None or is_sharded(tensor):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(local(parameter).device), *spread, src_data_rank=None)


def resharded(model: nn.Module) -> nn.Module:
    """The same model, its parameters under their names the sharded ones: a forward pass leaves the root's gathered."""
    for module in fsdp_modules(model):
        module.reshard()
    return model


def shards_of(parameter: Tensor) -> tuple[Tensor, ...]:
    """What a gathered parameter was gathered from, while it is measured; nothing for any other tensor."""
    shard = getattr(parameter, SHARD, None)
    return () if shard is None else (shard,)


def fsdp_modules(model: nn.Module) -> list[Any]:
    """The modules of the model that `fully_shard` was called on."""
    if not (dist.is_available() and dist.is_initialized()):
        return []
    from torch.distributed import fsdp

    kind = getattr(fsdp, "FSDPModule", None)
    return [] if kind is None else [module for module in model.modules() if isinstance(module, kind)]
