"""Matrix products other than `F.linear`, said as `F.linear`: matmul, addmm (`Conv1D`), einsum, bilinear."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from forgetless.measure.kernels.parts.rule import Operation, Rewrite, of_samples


def matmul(left: Tensor, right: Tensor) -> Any:
    """`x W` with W `[I, O]`, and `W x` with W `[O, I]` and x `[N, …, I, T]`."""
    if right.dim() == 2 and left.dim() >= 2:
        return functional.linear(left, right.t())
    if right.dim() == 1 and left.dim() >= 2:
        return functional.linear(left, right.unsqueeze(0)).squeeze(-1)
    if left.dim() == 2 and right.dim() >= 3:
        return functional.linear(right.transpose(-1, -2), left).transpose(-1, -2)
    return NotImplemented


def addmm(bias: Tensor, left: Tensor, right: Tensor, *, beta: float = 1, alpha: float = 1) -> Any:
    """`b + x W` with x `[N·T, I]`, W `[I, O]`."""
    return functional.linear(left, right.t(), bias) if beta == alpha == 1 and bias.dim() == 1 else NotImplemented


def bilinear(left: Tensor, right: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`y_o = x₁ᵀ W_o x₂ + b_o`: linear in the outer product of both inputs, W `[O, I, J]`."""
    pairs = (left.unsqueeze(-1) * right.unsqueeze(-2)).flatten(-2)
    return functional.linear(pairs, weight.flatten(1), bias)


def einsum(equation: str, *operands: Any) -> Any:
    """Data and a matrix-like parameter, as `F.linear` over the contracted letters; no letter kept from both."""
    given = operands[0] if len(operands) == 1 and isinstance(operands[0], (tuple, list)) else operands
    inputs, arrow, out = equation.replace(" ", "").partition("->")
    letters = inputs.split(",")
    if not arrow or "." in equation or len(letters) != 2 or len(given) != 2:
        return NotImplemented
    first = 0 if of_samples(given[0]) else 1
    values, matrix, x, w = given[first], given[1 - first], letters[first], letters[1 - first]
    contracted = [letter for letter in w if letter in x]
    rows = [letter for letter in x if letter not in w]
    columns = [letter for letter in w if letter not in x]
    plain = len({*x}) == len(x) and len({*w}) == len(w)
    if not (plain and contracted and rows and columns) or sorted(out) != sorted(rows + columns):
        return NotImplemented
    left = values.permute([x.index(letter) for letter in rows + contracted]).flatten(len(rows))
    right = matrix.permute([w.index(letter) for letter in columns + contracted]).flatten(len(columns))
    result = functional.linear(left, right.flatten(0, -2))
    result = result.reshape(*left.shape[:-1], *(matrix.shape[w.index(letter)] for letter in columns))
    return result.permute([(rows + columns).index(letter) for letter in out])


def _swapped(function: Callable[..., Any]) -> Rewrite:
    return lambda right, left: function(left, right)


REWRITES: dict[Operation, Rewrite] = {
    **dict.fromkeys((torch.matmul, torch.mm, torch.mv, torch.Tensor.matmul, torch.Tensor.mm), matmul),
    **dict.fromkeys((torch.Tensor.mv, torch.Tensor.__matmul__), matmul),
    torch.Tensor.__rmatmul__: _swapped(matmul),
    torch.addmm: addmm,
    torch.Tensor.addmm: addmm,
    torch.bilinear: bilinear,
    torch.einsum: einsum,
}
