"""Elementwise use of a parameter (scales, position tables, class tokens): gradients per row, summed per sample.

An operation that treats the rows of its result independently needs no rule of its own: where it meets the samples, the
parameter is spread to one virtual copy per row, and torch's own backward gives the gradient of every copy.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from forgetless.measure.kernels.parts.rule import Operation, Samples
from forgetless.measure.kernels.parts.terms import Dense, Rows, Term, widened

_T = torch.Tensor
ELEMENTWISE: frozenset[Operation] = frozenset(
    {
        *(torch.add, torch.sub, torch.mul, torch.div, torch.true_divide, torch.multiply, torch.subtract, torch.divide),
        *(_T.add, _T.sub, _T.mul, _T.div, _T.true_divide, _T.multiply, _T.subtract, _T.divide),
        *(_T.add_, _T.sub_, _T.mul_, _T.div_, _T.__iadd__, _T.__isub__, _T.__imul__, _T.__itruediv__),
        *(_T.__add__, _T.__radd__, _T.__sub__, _T.__rsub__, _T.__mul__, _T.__rmul__, _T.__truediv__, _T.__rtruediv__),
        *(torch.rsub, torch.pow, _T.pow, _T.__pow__, _T.__rpow__, torch.where, _T.where, torch.lerp, _T.lerp),
        *(torch.addcmul, _T.addcmul, torch.maximum, torch.minimum, _T.maximum, _T.minimum),
        functional.scaled_dot_product_attention,  # of learned queries, say: no sample sees another's
    }
)  # fmt: skip
JOINING: frozenset[Operation] = frozenset({torch.cat, torch.concat, torch.concatenate})


def spread(value: Tensor, rank: int, rows: int, samples: Samples) -> Tensor | None:
    """`value` as it broadcasts to a result of `rank` axes with `rows` rows: one virtual copy a row.

    `None` where the row axis of the result is not a whole number of rows per sample, or the value has rows of another
    number there.
    """
    if (samples.of is None and rows % samples.count) or value.dim() > rank:
        return None
    aligned = value.view([1] * (rank - value.dim()) + list(value.shape))
    if aligned.shape[samples.axis] != 1 and (samples.of is not None or aligned.shape[samples.axis] != rows):
        return None
    return aligned.expand([rows if axis == samples.axis else -1 for axis in range(rank)])


def spread_term(gradient: Tensor, value: Tensor, samples: Samples) -> Term:
    """The term of `value` from the gradient of its spread."""
    gradient = gradient if samples.of is None else samples.padded(gradient, 0)
    before = gradient.dim() - value.dim()
    own = samples.axis - before
    rows = own >= 0 and samples.of is None and value.shape[own] == gradient.shape[samples.axis]
    if rows:
        return Rows(widened(gradient).reshape(value.shape), own, samples.count, samples.inner)
    front = Samples(samples.count, 0, samples.inner)
    per_row = front.rows(widened(gradient).movedim(samples.axis, 0), gradient.dim() - 1)
    return Dense(per_row.sum(1).reshape(samples.count, *value.shape))
