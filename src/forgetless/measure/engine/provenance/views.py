"""Writing through views: what is written to a view is written to the tensor that it is a view of."""

from __future__ import annotations

import torch
from torch import Tensor

from forgetless.measure.engine.provenance.rows import BLANK, Rows, alias_of, lost, note, rewrite, rows_of, same
from forgetless.measure.engine.provenance.shapes import described

_LARGEST = 1 << 20  # elements whose samples may be written out


def rewritten(target: Tensor, before: Rows | None, now: Rows, samples: int) -> None:
    """Note what is known of a tensor that was written in place, and of what it is a view of."""
    note(target, now)
    alike = before is not None and before is not BLANK and before.axis == now.axis and before.lost == now.lost
    if alike and before is not None and same(before, now):
        return  # its rows are whose they were
    alias = alias_of(target)
    if alias is not None:  # the same memory, though torch calls it no view
        rewrite(alias)
        note(alias, lost("writing to a detached tensor"))
        note(target, now)
    root = target._base
    if root is None:
        rewrite(target)
        return
    known = _through(target, now, root, samples)
    rewrite(root)
    note(root, known)
    note(target, now)


def _through(target: Tensor, now: Rows, root: Tensor, samples: int) -> Rows:
    """What is known of `root` after rows with the samples `now` were written to its view `target`."""
    before = rows_of(root) or BLANK
    unknown = lost("writing to a view")
    if now.lost is not None or before.lost is not None:
        return unknown
    if target.dtype != root.dtype:  # the real part, say
        return unknown
    if now is BLANK:
        return before
    ids = _written_out(root, before, samples)
    if ids is None or not root.is_contiguous():
        return unknown
    numbers = now.of if now.axis is None else now.numbers(target.shape[now.axis], samples)
    if numbers is None:
        return unknown
    view = ids.as_strided(target.shape, target.stride(), target.storage_offset() - root.storage_offset())
    view.copy_(
        numbers.view([-1 if axis == now.axis else 1 for axis in range(target.dim())]) if target.dim() else numbers[0]
    )
    return described(ids, samples) or unknown


def _written_out(tensor: Tensor, rows: Rows, samples: int) -> Tensor | None:
    """The sample of every element, −1 for constants; None where that is not known, or the tensor is too large."""
    if tensor.numel() > _LARGEST:
        return None
    if rows is BLANK:
        return torch.full(tensor.shape, -1)
    if rows.axis is None:
        return None if rows.of is None else torch.full(tensor.shape, int(rows.of[0]))
    numbers = rows.numbers(tensor.shape[rows.axis], samples)
    if numbers is None:
        return None
    shape = [-1 if axis == rows.axis else 1 for axis in range(tensor.dim())]
    return numbers.view(shape).expand(tensor.shape).clone(memory_format=torch.contiguous_format)
