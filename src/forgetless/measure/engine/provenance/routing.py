"""Operations that choose rows by the data: the same choice is made among the samples' numbers.

`x[mask]`, `x[order]`, `index_select`, `gather`, `sort`, `topk`, packing, and writing back by the same means. Where a
choice is along other axes than the samples', nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from forgetless.measure.engine.provenance.rows import ANYWHERE, BLANK, REGULAR, Rows, lost, rows_of, simplified

Rule = Callable[..., Any]


def indexed(rows: Rows, x: Tensor, index: Any, samples: int) -> Rows:
    """`x[index]`."""
    if rows.axis is None or rows.lost is not None:
        return rows if rows.lost is not None or not _advanced(index) else _unknown(rows, "indexing")
    numbers = _numbered(rows, x, index, samples)
    if numbers is None:
        return _unknown(rows, "indexing")
    return _described(numbers, samples, rows, "indexing")


def _advanced(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, (Tensor, list)) for part in parts)


def _unknown(rows: Rows, what: str) -> Rows:
    return lost(what)


def _numbered(rows: Rows, x: Tensor, index: Any, samples: int) -> Tensor | None:
    """The samples' numbers of `x[index]`, without the axes that the index leaves alone behind the samples' axis."""
    assert rows.axis is not None
    numbers = rows.numbers(x.shape[rows.axis], samples)
    if numbers is None:
        return None
    parts = list(index) if isinstance(index, tuple) else [index]
    used = sum(_axes(part) for part in parts if part is not Ellipsis)
    if any(part is Ellipsis for part in parts):
        place = next(i for i, part in enumerate(parts) if part is Ellipsis)
        parts[place : place + 1] = [slice(None)] * (x.dim() - used)
    else:
        parts += [slice(None)] * max(0, rows.axis + 1 - used)
    parts = [part.detach().cpu() if isinstance(part, Tensor) else part for part in parts]
    depth = sum(map(_axes, parts))
    shape = [1] * depth
    shape[rows.axis] = len(numbers)
    return numbers.view(shape).expand(x.shape[:depth])[tuple(parts)]


def _axes(part: Any) -> int:
    """How many axes a part of an index takes up."""
    if part is None or isinstance(part, bool):
        return 0
    return part.dim() if isinstance(part, Tensor) and part.dtype in (torch.bool, torch.uint8) else 1


def _described(numbers: Tensor, samples: int, before: Rows, what: str) -> Rows:
    """Rows with these numbers, `[R, …]`: they must vary along one axis only."""
    if numbers.dim() == 0:
        return Rows(None, numbers.reshape(1))
    if not numbers.numel():
        return Rows(list(numbers.shape).index(0), numbers.new_zeros(0))
    varying = [axis for axis in range(numbers.dim()) if not bool((numbers == numbers.narrow(axis, 0, 1)).all())]
    if len(varying) > 1:
        return lost(what)
    if not varying:  # one sample's alone
        axis = next((axis for axis, size in enumerate(numbers.shape) if size > 1), 0)
    else:
        (axis,) = varying
    line = numbers[tuple(slice(None) if each == axis else 0 for each in range(numbers.dim()))]
    return simplified(axis, line.clone(), samples)


def selected(rows: Rows, x: Tensor, dim: int, index: Tensor, samples: int) -> Rows:
    """`index_select`, and `take_along_dim` or `gather` by whole rows."""
    if rows.axis is None or rows.lost is not None:
        return rows if rows.lost is not None or not rows.mapped else lost("index_select")
    if dim % x.dim() != rows.axis:
        return rows
    numbers = rows.numbers(x.shape[rows.axis], samples)
    return lost("index_select") if numbers is None else simplified(rows.axis, numbers[index.detach().cpu()], samples)


def gathered(rows: Rows, x: Tensor, dim: int, index: Tensor, samples: int) -> Rows:
    """`gather`: along the samples' axis only where whole rows are taken."""
    if rows.lost is not None or rows.axis is None or dim % x.dim() != rows.axis:
        return rows
    lines = index.detach().movedim(rows.axis, 0)
    lines = lines.flatten(1) if lines.dim() > 1 else lines[:, None]
    if lines.shape[1] and bool((lines == lines[:, :1]).all()):
        return selected(rows, x, dim, lines[:, 0], samples)
    return lost("gather")


def repeated(rows: Rows, x: Tensor, repeats: Any, dim: int | None, samples: int) -> Rows:
    """`repeat_interleave`."""
    if rows.axis is None or rows.lost is not None:
        return rows
    if dim is None:
        if x.dim() != 1:
            return lost("repeat_interleave")
        dim = 0
    if dim % x.dim() != rows.axis:
        return rows
    numbers = rows.numbers(x.shape[rows.axis], samples)
    if numbers is None:
        return lost("repeat_interleave")
    times = repeats.detach().cpu() if isinstance(repeats, Tensor) else repeats
    return simplified(rows.axis, numbers.repeat_interleave(times), samples)


def ordered(rows: Rows, x: Tensor, indices: Tensor, dim: int, samples: int, what: str) -> tuple[Rows, Rows]:
    """`sort` and `topk`: of the values, and of the indices, each of which is of its value's sample."""
    if rows.axis is None or rows.lost is not None or dim % x.dim() != rows.axis:
        return rows, rows
    found = selected(rows, x, dim, indices, samples) if x.dim() == 1 else lost(what)
    return found, found


def found(rows: Rows, x: Tensor, places: Tensor, samples: int) -> Rows:
    """`nonzero`: a row for every element that is not 0, of the sample that the element is of; `places` `[K, dims]`."""
    if rows.lost is not None or rows.axis is None:
        return rows if rows.lost is not None else lost("nonzero")
    numbers = rows.numbers(x.shape[rows.axis], samples)
    return lost("nonzero") if numbers is None else simplified(0, numbers[places[:, rows.axis].cpu()], samples)


def written(target: Tensor, index: Any, source: Tensor | None, samples: int) -> Rows:
    """`target[index] = source`: what is known of the target afterwards.

    A target of constants belongs to the samples that are written into it; into rows of samples only their own may be
    written.
    """
    before, given = _owned(target), rows_of(source) if source is not None else None
    if given is None or given is BLANK:
        return rows_of(target) or REGULAR  # constants are anybody's, and stay so
    assert source is not None
    if given.lost is not None or (before is not None and before.lost is not None):
        return given if given.lost is not None else before  # type: ignore[return-value]
    if not _advanced(index):
        if before is None:
            return _whole(target, given, samples)
        same = before.axis == given.axis and not before.mapped and not given.mapped
        return before if same or before.axis is None else lost("writing by index")
    ids = _target_numbers(target, before, samples)
    if ids is None:
        return ANYWHERE if before is not None and not given.mapped else lost("writing by index")
    axis, numbers = ids
    own = _numbered(Rows(axis, numbers), target, index, samples)
    theirs = _spread_numbers(given, source, own, samples)
    if own is None or theirs is None:
        return lost("writing by index")
    if bool(((own == theirs) | (theirs < 0)).all()):
        return before if before is not None else simplified(axis, numbers, samples)
    if before is None and axis == 0 and own.dim() == 1 and not isinstance(index, tuple):
        return _filled(target, index, theirs, samples)
    return lost("writing by index")


def added(target: Tensor, index: Tensor, source: Tensor, samples: int) -> Rows:
    """`index_add(0, index, source)`, and the like along the first axis: every row may only get rows of its sample."""
    before, given = _owned(target), rows_of(source)
    if given is None or given.lost is not None:
        return given or before or ANYWHERE
    numbers = given.numbers(source.shape[0], samples) if given.axis == 0 else None
    places = index.detach().cpu()
    if numbers is None or places.dim() != 1:
        return lost("index_add")
    if before is None:
        return _filled(target, places, numbers, samples)
    own = before.numbers(target.shape[0], samples) if before.axis == 0 else None
    if own is None or not bool(((own[places] == numbers) | (own[places] < 0)).all()):
        return lost("index_add")
    return before if bool((own >= 0).all()) else _filled(target, places, numbers, samples, own)


def _owned(target: Tensor) -> Rows | None:
    """What is known of a tensor that is written to; None for constants."""
    rows = rows_of(target)
    return None if rows is BLANK else rows


def _filled(target: Tensor, index: Any, numbers: Tensor, samples: int, own: Tensor | None = None) -> Rows:
    """Constants into which rows are written: each row belongs to the sample whose rows it got, and to one only.

    `own` says which rows are some sample's already.
    """
    own = torch.full((target.shape[0],), -1) if own is None else own.clone()
    places = index.detach().cpu() if isinstance(index, Tensor) else index
    own[places] = numbers
    if not bool((own[places] == numbers).all()):
        return lost("writing by index")
    return simplified(0, own, samples)


def _whole(target: Tensor, given: Rows, samples: int) -> Rows:
    """Rows written by slices into constants of as many rows."""
    if given.mapped or given.axis is None:
        return lost("writing by index") if given.mapped else ANYWHERE
    return REGULAR if target.shape[0] % samples == 0 else lost("writing by index")


def _target_numbers(target: Tensor, before: Rows | None, samples: int) -> tuple[int, Tensor] | None:
    if before is not None:
        numbers = None if before.axis is None else before.numbers(target.shape[before.axis], samples)
        return None if numbers is None or before.axis is None else (before.axis, numbers)
    guess = REGULAR.numbers(target.shape[0], samples) if target.dim() else None
    return (0, torch.full((target.shape[0],), -1) if guess is None else guess) if target.dim() else None


def _spread_numbers(given: Rows, source: Tensor, own: Tensor | None, samples: int) -> Tensor | None:
    """The sample of every row that is written, in the shape of `own`, the numbers of the places written to."""
    if own is None:
        return None
    if given.axis is None:
        return given.of.expand(own.shape) if given.of is not None else None
    numbers = given.numbers(source.shape[given.axis], samples)
    if numbers is None or given.axis >= own.dim() or own.shape[given.axis] != len(numbers):
        return None
    shape = [1] * own.dim()
    shape[given.axis] = len(numbers)
    return numbers.view(shape).expand(own.shape)


def packed(rows: Rows, x: Tensor, sizes: Tensor, batch_first: bool, samples: int) -> Rows:
    """`pack_padded_sequence`: time after time, the first so many sequences."""
    if rows.lost is not None:
        return rows
    axis = 0 if batch_first else 1
    numbers = rows.numbers(x.shape[axis], samples) if rows.axis == axis else None
    return lost("packing") if numbers is None else Rows(0, torch.cat([numbers[:size] for size in sizes.tolist()]))


def padded(rows: Rows, sizes: Tensor, batch_first: bool, samples: int) -> Rows:
    """`pad_packed_sequence`: the way back."""
    if rows.axis != 0 or rows.of is None:
        return rows if rows.lost is not None else lost("padding")
    return simplified(0 if batch_first else 1, rows.of[: int(sizes[0])], samples)


def split(rows: Rows, x: Tensor, sizes: Sequence[int], dim: int, samples: int) -> list[Rows]:
    """`split`, `chunk` and `unbind` into pieces of these sizes."""
    if rows.axis is None or rows.lost is not None or dim % x.dim() != rows.axis:
        return [rows] * len(sizes)
    numbers = rows.numbers(x.shape[rows.axis], samples)
    if numbers is None:
        return [lost("split")] * len(sizes)
    return [simplified(rows.axis, piece, samples) for piece in torch.split(numbers, list(sizes))]
