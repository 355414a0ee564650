"""`F.embedding`: rows looked up by id. `g_n[v] = Σ_{t: id_nt = v} d_nt`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from forgetless.measure.kernels.parts.rule import Call, Operation, Rewrite, Rule, Samples
from forgetless.measure.kernels.parts.terms import Lookups


def embedding(
    samples: Samples,
    weight: Tensor,
    indices: Tensor,
    padding_idx: int = -1,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Call | None:
    """Rule of `torch.embedding`: table `[V, D]`, ids `[N, …]` → rows `[N, …, D]`."""
    if not samples.fit(indices) or scale_grad_by_freq:
        return None

    def table_term(d: Tensor, ids: Tensor) -> Lookups:
        return Lookups(samples.rows(d, 1), samples.rows(ids, 0), weight.shape, padding_idx)

    return Call(
        indices,
        (weight,),
        forward=lambda ids, table: torch.embedding(table, ids, padding_idx),
        input_gradient=lambda d, ids, table: None,
        terms=(table_term,),
    )


def index_select(table: Tensor, dim: int, index: Tensor) -> Any:
    """`table.index_select(0, ids)` is a lookup."""
    return functional.embedding(index, table) if table.dim() == 2 and dim in (0, -2) else NotImplemented


def getitem(table: Tensor, index: Any) -> Any:
    """`table[ids]` with integer ids is a lookup."""
    whole = isinstance(index, Tensor) and not index.dtype.is_floating_point and index.dtype != torch.bool
    if not whole or table.dim() < 2 or bool((index < 0).any()):
        return NotImplemented
    rows = functional.embedding(index, table.flatten(1))
    return rows.reshape(*index.shape, *table.shape[1:])


def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Any:
    """Bags `[N, T]` of ids, summed or averaged: a lookup, then the sum. Bags by offsets are left."""
    if input.dim() != 2 or mode == "max" or max_norm is not None or scale_grad_by_freq:
        return NotImplemented
    rows = functional.embedding(input, weight, padding_idx)
    kept = torch.ones_like(input) if padding_idx is None else (input != padding_idx).to(input.dtype)
    weights = kept.to(weight.dtype) if per_sample_weights is None else kept * per_sample_weights
    total = (rows * weights.unsqueeze(-1)).sum(1)
    return total if mode == "sum" else total / kept.sum(1, keepdim=True).clamp(min=1)


REWRITES: dict[Operation, Rewrite] = {
    **dict.fromkeys((torch.index_select, torch.Tensor.index_select), index_select),
    torch.Tensor.__getitem__: getitem,
    functional.embedding_bag: embedding_bag,
}
RULES: dict[Operation, Rule] = {torch.embedding: embedding}
