"""What methods keep, as named tensors for a checkpoint and back; and on which device it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

import torch
from torch import Tensor, nn

Tensors = dict[str, Tensor]
Tree = Mapping[str, Any]  # name → a tensor, or a tree of its own

_PLAIN = " +,:=()[]"  # beside letters, digits and "_.-~", what a name keeps


def pack(tree: Tree) -> Tensors:
    """A tree of tensors as a flat dictionary: the names on the way to a tensor, joined by "/".

    Names may hold anything, a "/" too: it is quoted as in a URL.
    """
    found: Tensors = {}
    for name, each in tree.items():
        own = quote(name, safe=_PLAIN)
        if isinstance(each, Mapping):
            found |= {f"{own}/{rest}": tensor for rest, tensor in pack(each).items()}
        else:
            found[own] = each
    return found


def unpack(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The tree that `pack` was given. Trees without a tensor are left out."""
    tree: dict[str, Any] = {}
    for path, tensor in tensors.items():
        *names, last = map(unquote, path.split("/"))
        inside = tree
        for name in names:
            inside = inside.setdefault(name, {})
        inside[last] = tensor
    return tree


def on_device_of(model: nn.Module, tree: Any) -> Any:
    """A copy of a tree's tensors on the network's device.

    One rule for all methods: tensors of the network's or the features' size are on the network's device; remembered
    samples and their outputs stay on the CPU and are moved batch by batch.
    """
    device = next(model.parameters()).device
    if isinstance(tree, Mapping):
        return {name: on_device_of(model, each) for name, each in tree.items()}
    return tree.to(device, copy=True)


def padded(tensor: Tensor, like: Tensor) -> Tensor:
    """`tensor` in the corner of zeros in the shape of `like`: the values from before a head has grown."""
    if tensor.shape == like.shape:
        return tensor
    grown = tensor.new_zeros(like.shape)
    grown[corner(tensor)] = tensor
    return grown


def corner(tensor: Tensor) -> tuple[slice, ...]:
    """The index of the part of a parameter that has the shape of `tensor`, which it had before its head has grown."""
    return tuple(slice(size) for size in tensor.shape)


def scalar(value: int) -> Tensor:
    """A number as a tensor `[]`."""
    return torch.tensor(value)


def leaves(batch: Any) -> Tensors:
    """A batch as name → tensor: "*" for a tensor, numbers for a tuple, "key:…" for a dict."""
    if isinstance(batch, Tensor):
        return {"*": batch}
    if isinstance(batch, Mapping):
        return {f"key:{name}": tensor for name, tensor in batch.items()}
    return {str(number): tensor for number, tensor in enumerate(batch)}


def from_leaves(named: Mapping[str, Tensor]) -> Any:
    """The batch that `leaves` was given."""
    if "*" in named:
        return named["*"]
    if all(name.startswith("key:") for name in named):
        return {name.removeprefix("key:"): tensor for name, tensor in named.items()}
    return tuple(named[str(number)] for number in range(len(named)))
