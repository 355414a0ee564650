"""Another axis as long as the batch: positions, experts, heads or classes, of which there happen to be N.

Which axis is the samples' cannot be told by its length then. Every problem has batches of 3, 5 and 8, and an axis of 5.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from problems.problem import Problem, module
from problems.uses import Part, Uses

square = partial(nn.Linear, 3, 3)
narrow = partial(nn.Linear, 3, 2)


def alike(name: str, function: Callable[[Any, Any], Any], *shape: int, **parts: Part) -> Problem:
    """`function(module, x)` on batches `[N, *shape]` of N = 3, 5, 8."""
    return module(name, "alike", lambda: Uses(function, **parts), lambda: [torch.randn(n, *shape) for n in (3, 5, 8)])


def table(x: Tensor, *shape: int) -> Tensor:
    """Constants, the same at every call."""
    return torch.linspace(-1, 1, math.prod(shape), dtype=x.dtype).sin().view(shape) + 0.3


def by_last(m: Any, y: Tensor, axis: int) -> Tensor:
    """A layer on the last axis, and the sum over the axis that is not the samples'."""
    return m.lin(y).tanh().sum(axis)


def written(m: Any, x: Tensor) -> Tensor:
    """Five steps into one tensor, in place."""
    steps = x.new_zeros(5, *x.shape)
    for k in range(5):
        steps[k] = x * (k + 1)
    return by_last(m, steps, 0)


def attended(m: Any, x: Tensor) -> Tensor:
    """Five questions to every sample's positions, questions first in the answer."""
    questions = table(x, 5, 1, 1, 3).expand(5, len(x), 1, 3)
    return by_last(m, functional.scaled_dot_product_attention(questions, x, x).squeeze(2), 0)


ALIKE = [
    alike("positions first by einsum", lambda m, x: by_last(m, torch.einsum("ntf->tnf", x), 0), 5, 3, lin=square),
    alike(
        "an expert's matrix each",
        lambda m, x: by_last(m, torch.matmul(x, table(x, 5, 4, 3)), 0),
        4,
        lin=square,
    ),
    alike(
        "an expert's matrix each by einsum",
        lambda m, x: by_last(m, torch.einsum("nf,efo->eno", x, table(x, 5, 4, 3)), 0),
        4,
        lin=square,
    ),
    alike(
        "mixed positions",
        lambda m, x: by_last(m, torch.tensordot(table(x, 5, 4), x, dims=([1], [1])), 0),
        4,
        3,
        lin=square,
    ),
    alike("from the left", lambda m, x: by_last(m, table(x, 5, 4) @ x, 1), 4, 3, lin=square),
    alike("columns", lambda m, x: by_last(m, (table(x, 5, 4) @ x.mT).mT, 1), 3, 4, lin=partial(nn.Linear, 5, 2)),
    alike(
        "distances to a table",
        lambda m, x: m.lin(torch.cdist(x, table(x, 5, 3))).tanh(),
        3,
        lin=partial(nn.Linear, 5, 2),
    ),
    alike("the larger of a table", lambda m, x: by_last(m, torch.fmax(x, table(x, 5, 1, 3)), 0), 3, lin=square),
    alike("below a table", lambda m, x: by_last(m, x.clip(max=table(x, 5, 1, 3)), 0), 3, lin=square),
    alike(
        "broadcast with a table",
        lambda m, x: by_last(m, torch.broadcast_tensors(x, table(x, 5, 1, 3))[0], 0),
        3,
        lin=square,
    ),
    alike("plus a table", lambda m, x: by_last(m, x + table(x, 5, 1, 3), 0), 3, lin=square),
    alike("to a table's power", lambda m, x: by_last(m, (x.abs() + 1) ** table(x, 5, 1, 3), 0), 3, lin=square),
    alike(
        "where a table says",
        lambda m, x: by_last(m, torch.where(table(x, 5, 1, 3) > 0.3, x, x.tanh()), 0),
        3,
        lin=square,
    ),
    alike("a diagonal", lambda m, x: by_last(m, x.diagonal(dim1=1, dim2=2), 1), 5, 5, 3, lin=partial(nn.Linear, 5, 2)),
    alike("on a diagonal", lambda m, x: by_last(m, torch.diag_embed(x), 1), 5, lin=partial(nn.Linear, 5, 2)),
    alike("expanded in front", lambda m, x: by_last(m, x.expand(5, *x.shape) * table(x, 5, 1, 3), 0), 3, lin=square),
    alike(
        "repeated in front",
        lambda m, x: by_last(m, x.repeat(5, 1, 1) * table(x, 5, 1, 3), 0),
        3,
        lin=square,
    ),
    alike("stacked in front", lambda m, x: by_last(m, torch.stack([x * k for k in range(5)]), 0), 3, lin=square),
    alike(
        "states of five layers",
        lambda m, x: m.lin(m.gru(x)[1]).tanh().sum(0),
        4,
        3,
        gru=partial(nn.GRU, 3, 3, 5, batch_first=True),
        lin=square,
    ),
    alike("written by position", written, 3, lin=square),
    alike("attended by five", attended, 4, 3, lin=square),
    alike("looked up by code", lambda m, x: by_last(m, table(x, 5, 3)[(x > 0).long().sum(-1)], 1), 5, 4, lin=square),
    alike(
        "a number for each of five",
        lambda m, x: m.lin(functional.one_hot((x > 0).long().sum(-1), 5).to(x.dtype)).tanh(),
        4,
        lin=partial(nn.Linear, 5, 2),
    ),
    alike("heads first", lambda m, x: by_last(m, x.unflatten(-1, (5, 3)).transpose(0, 1), 0), 15, lin=square),
    alike(
        "likeness to five",
        lambda m, x: m.lin(functional.cosine_similarity(x[:, None], table(x, 5, 3), dim=-1)).tanh(),
        3,
        lin=partial(nn.Linear, 5, 2),
    ),
]
