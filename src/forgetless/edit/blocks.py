"""Tensors worked on in blocks: float32 copies of a whole weight beside the stored ones would triple the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

_ELEMENTS = 1 << 20  # of a block

Parts = Callable[[slice], Tensor]
"""A tensor that is read in parts: a slice of its elements in their order → those, flat."""


def elementwise(function: Callable[..., Tensor], first: Tensor, *others: Tensor, like: Tensor | None = None) -> Tensor:
    """`function` of the tensors, element by element, computed in float32 or wider.

    Args:
        function: from blocks of the tensors, in float32 (float64 where one of them is), to a block of the result.
        first: any shape.
        others: tensors of the same shape.
        like: what gives the result its type; by default `first`.

    Returns:
        A tensor of the shape of `first`.
    """
    tensors = [each.reshape(-1) for each in (first, *others)]
    wide = width(*tensors)
    result = torch.empty_like(tensors[0], dtype=(first if like is None else like).dtype)
    for at in slices(result.numel()):
        result[at] = function(*(each[at].to(wide) for each in tensors)).to(result.dtype)
    return result.view(first.shape)


def width(*tensors: Tensor) -> torch.dtype:
    """float64 where a tensor has it, else float32: what is computed in."""
    return torch.float64 if any(each.dtype == torch.float64 for each in tensors) else torch.float32


def long_first(tensor: Tensor) -> Tensor:
    """The tensor as a matrix [long, short] with long ≥ short: (first axis, the others), transposed where that is wide.

    A convolution's [o, i, h, w] becomes [o, i·h·w].
    """
    matrix = tensor.flatten(1)
    return matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T


def rows(matrix: Tensor) -> Iterator[slice]:
    """Slices of rows that make blocks."""
    return slices(matrix.shape[0], max(1, _ELEMENTS // max(1, matrix.shape[1])))


def slices(length: int, step: int = _ELEMENTS) -> Iterator[slice]:
    """Slices of at most `step` that make up `length`."""
    for start in range(0, length, step):
        yield slice(start, min(length, start + step))
