"""Matrix products other than `F.linear`: those with one matrix are said as it, those with a matrix per block as `bmm`.

A block is a head, an expert, a group: an axis that data and parameter share and the result keeps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from forgetless.measure.kernels.parts.rule import Call, Operation, Rewrite, Rule, Samples, of_samples
from forgetless.measure.kernels.parts.terms import Blocks, Outer, Rows, Term, widened

Letters = tuple[list[str], list[str], list[str], list[str]]  # blocks, rows, contracted, columns


def matmul(left: Tensor, right: Tensor) -> Any:
    """`x W` with W `[I, O]` or `[B, I, O]`, and `W x` with W `[O, I]` or `[B, O, I]` and x `[N, …, I, T]`."""
    if right.dim() == 2 and left.dim() >= 2:
        return functional.linear(left, right.t())
    if right.dim() == 1 and left.dim() >= 2:
        return functional.linear(left, right.unsqueeze(0)).squeeze(-1)
    if left.dim() == 2 and right.dim() >= 3:
        return functional.linear(right.transpose(-1, -2), left).transpose(-1, -2)
    if min(left.dim(), right.dim()) > 2:
        deep = max(left.dim(), right.dim())
        letters = "abcdefghijklmnop"[: deep - 2]
        one, two = (letters[deep - each.dim() :] for each in (left, right))
        if left.shape[:-2][-len(two) :] == right.shape[:-2][-len(one) :]:  # nothing is broadcast
            return einsum(f"{one}xy,{two}yz->{letters}xz", left, right)
    return NotImplemented


def bmm(samples: Samples, input: Tensor, mat2: Tensor) -> Call | None:
    """Rule of `y_b = x_b W_b` with x `[B, R, I]`, W `[B, I, O]`; the samples are among the rows, or are the blocks."""
    if input.dim() != 3 or mat2.dim() != 3 or samples.axis > 1 or of_samples(mat2) or not samples.fit(input):
        return None
    if samples.axis == 0 and samples.of is not None:
        return None  # the matrices are in the order of the rows, whatever that is

    def term(d: Tensor, x: Tensor) -> Term:
        if samples.axis == 0:
            return Rows(widened(x).transpose(1, 2) @ widened(d), 0, samples.count, samples.inner)
        own = replace(samples, axis=0, of=None)
        shape = torch.Size(mat2.shape[1:])
        return Blocks(tuple(Outer(own.rows(a, 1), own.rows(b, 1), shape) for a, b in zip(x, d, strict=True)))

    return Call(
        input,
        (mat2,),
        forward=torch.bmm,
        input_gradient=lambda d, x, w: d @ w.transpose(1, 2).to(d.dtype),
        terms=(term,),
    )


def turned_bmm(left: Tensor, right: Tensor) -> Any:
    """`W_b x_b`."""
    if of_samples(left) or not of_samples(right):
        return NotImplemented
    return torch.bmm(right.transpose(1, 2), left.transpose(1, 2)).transpose(1, 2)


def grouped_mm(left: Tensor, right: Tensor, offs: Tensor | None = None, bias: Any = None, out_dtype: Any = None) -> Any:
    """Experts' matrices W `[E, I, O]` on rows x `[R, I]` sorted by expert, each one's up to its `offs`."""
    ends = [] if offs is None else offs.tolist()
    whole = left.dim() == 2 and right.dim() == 3 and ends[-1:] == [len(left)]
    if (
        not whole
        or not of_samples(left)
        or of_samples(right)
        or bias is not None
        or out_dtype not in (None, left.dtype)
    ):
        return NotImplemented
    parts = zip([0, *ends], ends, right.unbind(), strict=False)
    return torch.cat([functional.linear(left[start:end], matrix.t()) for start, end, matrix in parts])


def baddbmm(added: Tensor, left: Tensor, right: Tensor, *, beta: float = 1, alpha: float = 1) -> Any:
    """`b + x_b W_b`."""
    return torch.add(torch.bmm(left, right), added) if beta == alpha == 1 else NotImplemented


def addmm(bias: Tensor, left: Tensor, right: Tensor, *, beta: float = 1, alpha: float = 1) -> Any:
    """`b + x W` with x `[N·T, I]`, W `[I, O]`."""
    return functional.linear(left, right.t(), bias) if beta == alpha == 1 and bias.dim() == 1 else NotImplemented


def bilinear(left: Tensor, right: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`y_o = x₁ᵀ W_o x₂ + b_o`: linear in the outer product of both inputs, W `[O, I, J]`."""
    pairs = (left.unsqueeze(-1) * right.unsqueeze(-2)).flatten(-2)
    return functional.linear(pairs, weight.flatten(1), bias)


def einsum(equation: str, *operands: Any) -> Any:
    """Data and a matrix-like parameter, as a product over the contracted letters; letters kept from both are blocks."""
    given = operands[0] if len(operands) == 1 and isinstance(operands[0], (tuple, list)) else operands
    inputs, arrow, out = equation.replace(" ", "").partition("->")
    letters = inputs.split(",")
    if not arrow or "." in equation or len(letters) != 2 or len(given) != 2:
        return NotImplemented
    first = 0 if of_samples(given[0]) else 1
    values, matrix, x, w = given[first], given[1 - first], letters[first], letters[1 - first]
    blocks = [letter for letter in w if letter in x and letter in out]
    contracted = [letter for letter in w if letter in x and letter not in out]
    rows = [letter for letter in x if letter not in w]
    columns = [letter for letter in w if letter not in x]
    plain = len({*x}) == len(x) and len({*w}) == len(w)
    if not (plain and rows) or sorted(out) != sorted(blocks + rows + columns):
        return NotImplemented
    if blocks:
        return _in_blocks(values, matrix, x, w, (blocks, rows, contracted, columns), out)
    if not (contracted and columns):
        return NotImplemented
    left = values.permute([x.index(letter) for letter in rows + contracted]).flatten(len(rows))
    right = matrix.permute([w.index(letter) for letter in columns + contracted]).flatten(len(columns))
    result = functional.linear(left, right.flatten(0, -2))
    result = result.reshape(*left.shape[:-1], *(matrix.shape[w.index(letter)] for letter in columns))
    return result.permute([(rows + columns).index(letter) for letter in out])


def _in_blocks(values: Tensor, matrix: Tensor, x: str, w: str, letters: Letters, out: str) -> Tensor:
    """As `bmm` over the blocks: values `[blocks, rows, contracted]`, matrix `[blocks, contracted, columns]`."""
    blocks, rows, contracted, columns = letters
    sizes = {**dict(zip(x, values.shape, strict=True)), **dict(zip(w, matrix.shape, strict=True))}

    def folded(tensor: Tensor, own: str, groups: Sequence[list[str]]) -> Tensor:
        order = [own.index(letter) for group in groups for letter in group]
        return tensor.permute(order).reshape([math.prod(sizes[letter] for letter in group) for group in groups])

    result = torch.bmm(folded(values, x, (blocks, rows, contracted)), folded(matrix, w, (blocks, contracted, columns)))
    found = [*blocks, *rows, *columns]
    return result.reshape([sizes[letter] for letter in found]).permute([found.index(letter) for letter in out])


def _swapped(function: Callable[..., Any]) -> Rewrite:
    return lambda right, left: function(left, right)


REWRITES: dict[Operation, Rewrite] = {
    **dict.fromkeys((torch.matmul, torch.mm, torch.mv, torch.Tensor.matmul, torch.Tensor.mm), matmul),
    **dict.fromkeys((torch.Tensor.mv, torch.Tensor.__matmul__), matmul),
    torch.Tensor.__rmatmul__: _swapped(matmul),
    torch.addmm: addmm,
    torch.Tensor.addmm: addmm,
    **dict.fromkeys((torch.baddbmm, torch.Tensor.baddbmm), baddbmm),
    **dict.fromkeys((torch.bmm, torch.Tensor.bmm), turned_bmm),
    **({torch._grouped_mm: grouped_mm} if hasattr(torch, "_grouped_mm") else {}),  # since torch 2.8
    torch.bilinear: bilinear,
    torch.einsum: einsum,
}
RULES: dict[Operation, Rule] = dict.fromkeys((torch.bmm, torch.Tensor.bmm), bmm)
