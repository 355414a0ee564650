"""Operations that choose rows by the data: the same choice is made among the samples' numbers.

`x[mask]`, `x[order]`, `index_select`, `gather`, `sort`, `topk`, packing, and writing back by the same means. Where a
choice is along other axes than the samples', nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from forgetless.measure.engine.provenance import aligned
from forgetless.measure.engine.provenance.rows import BLANK, REGULAR, Rows, lost, rows_of, same, simplified

Rule = Callable[..., Rows]


def indexed(rows: Rows, x: Tensor, index: Any, samples: int) -> Rows:
    """`x[index]`."""
    if rows.axis is None:
        return rows
    numbers = _numbered(rows, x, index, samples)
    return lost("indexing") if numbers is None else _described(numbers, samples)


def _advanced(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, (Tensor, list)) for part in parts)


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


def _described(numbers: Tensor, samples: int) -> Rows:
    """Rows with these numbers, `[R, …]`: they must vary along one axis only."""
    if numbers.dim() == 0:
        return Rows(None, numbers.reshape(1))
    if not numbers.numel():
        return Rows(list(numbers.shape).index(0), numbers.new_zeros(0))
    varying = [axis for axis in range(numbers.dim()) if not bool((numbers == numbers.narrow(axis, 0, 1)).all())]
    if len(varying) > 1:
        return lost("indexing")
    if not varying:  # one sample's alone
        return Rows(None, numbers.reshape(-1)[:1].clone())
    (axis,) = varying
    line = numbers[tuple(slice(None) if each == axis else 0 for each in range(numbers.dim()))]
    return simplified(axis, line.clone(), samples)


def selected(rows: Rows, x: Tensor, dim: int, index: Tensor, samples: int) -> Rows:
    """`index_select`, and `take_along_dim` or `gather` by whole rows."""
    if rows.axis is None or dim % x.dim() != rows.axis:
        return rows
    numbers = rows.numbers(x.shape[rows.axis], samples)
    return lost("index_select") if numbers is None else simplified(rows.axis, numbers[index.detach().cpu()], samples)


def gathered(rows: Rows, x: Tensor, dim: int, index: Tensor, samples: int) -> Rows:
    """`gather`: along the samples' axis only where whole rows are taken; along others of the first so many rows."""
    if rows.axis is None:
        return rows
    if dim % x.dim() != rows.axis:
        numbers = rows.numbers(x.shape[rows.axis], samples)
        length = index.shape[rows.axis]
        if length == x.shape[rows.axis] or numbers is None:
            return rows
        return simplified(rows.axis, numbers[:length], samples)
    lines = index.detach().movedim(rows.axis, 0)
    lines = lines.flatten(1) if lines.dim() > 1 else lines[:, None]
    if lines.shape[1] and bool((lines == lines[:, :1]).all()):
        return selected(rows, x, dim, lines[:, 0], samples)
    return lost("gather")


def along(index: Tensor, x: Tensor, dim: int) -> Tensor:
    """The index of `take_along_dim` as `gather` takes it."""
    shape = list(x.shape)
    shape[dim % x.dim()] = index.shape[dim]
    return index.expand(shape)


def _looked_up(x: Tensor, rest: Sequence[Any], kwargs: Any, result: Tensor, samples: int) -> Rows:
    """`table[index]` of constants: after slices in front, the axes of the indices are the result's."""
    parts = rest[0] if isinstance(rest[0], tuple) else (rest[0],)
    first = next((k for k, part in enumerate(parts) if not isinstance(part, slice)), len(parts))
    last = next((k for k in range(first, len(parts)) if not isinstance(parts[k], Tensor)), len(parts))
    indices, behind = parts[first:last], parts[last:]
    if any(each.dtype in (torch.bool, torch.uint8) for each in indices) or _advanced(tuple(behind)):
        return lost("indexing")
    deep = max(each.dim() for each in indices) if indices else 0
    core = result.dim() - first - deep
    return aligned.met("indexing", aligned.broadcast(indices, result, 0, core), result, samples)


def _as_the_index(place: int, *words: str) -> Rule:
    """Of constants: the result has the axes of the index, an argument after the table at this place or of this name."""

    def rule(x: Tensor, rest: Sequence[Any], kwargs: Any, result: Tensor, samples: int) -> Rows:
        index = rest[place] if len(rest) > place else next(kwargs[word] for word in words if word in kwargs)
        return aligned.met("indexing", aligned.broadcast([index], result), result, samples)

    return rule


def _rows_selected(x: Tensor, rest: Sequence[Any], kwargs: Any, result: Tensor, samples: int) -> Rows:
    dim = rest[0] if rest else kwargs["dim"]
    index = rest[1] if len(rest) > 1 else kwargs["index"]
    known = rows_of(index)
    return lost("index_select") if known is None or known.axis is None else known.at(dim % x.dim())


#: Constants of which entries are taken by numbers that are of samples: (table, further arguments, result) → rows.
LOOKUPS: dict[str, Rule] = {
    "__getitem__": _looked_up,
    "index_select": _rows_selected,
    "gather": _as_the_index(1, "index"),
    "take": _as_the_index(0, "index"),
    "take_along_dim": _as_the_index(0, "indices"),
}


def bagged(indices: Tensor, offsets: Tensor, bags: int, samples: int) -> Rows:
    """`embedding_bag(table, indices, offsets)`: a row for every bag, whose indices must all be of one sample."""
    rows = rows_of(indices)
    numbers = None if rows is None or rows.axis != 0 else rows.numbers(len(indices), samples)
    if numbers is None:
        return rows if rows is not None and rows.lost is not None else lost("embedding_bag")
    first = offsets.detach().cpu()[:bags]
    bag = torch.bucketize(torch.arange(len(numbers)), first, right=True) - 1
    owner = torch.full((bags,), -1)
    owner[bag] = numbers
    return simplified(0, owner, samples) if torch.equal(owner[bag], numbers) else lost("embedding_bag")


def repeated(rows: Rows, x: Tensor, repeats: Any, dim: int | None, samples: int) -> Rows:
    """`repeat_interleave`."""
    if repeats is None:
        return lost("repeat_interleave")
    if rows.axis is None:
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
    if rows.axis is None or dim % x.dim() != rows.axis:
        return rows, rows
    found = selected(rows, x, dim, indices, samples) if x.dim() == 1 else lost(what)
    return found, found


def found(rows: Rows, x: Tensor, places: Tensor, samples: int) -> Rows:
    """`nonzero`: a row for every element that is not 0, of the sample that the element is of; `places` `[K, dims]`."""
    if rows.axis is None:
        return Rows(0, rows.of[:1].expand(len(places))) if rows.of is not None else lost("nonzero")
    numbers = rows.numbers(x.shape[rows.axis], samples)
    return lost("nonzero") if numbers is None else simplified(0, numbers[places[:, rows.axis].cpu()], samples)


def written(target: Tensor, index: Any, source: Tensor | None, samples: int) -> Rows:
    """`target[index] = source`: what is known of the target afterwards.

    A target of constants belongs to the samples that are written into it; into rows of samples only their own may be
    written.
    """
    before, given = _owned(target), _owned(source) if source is not None else None
    ended = next((rows for rows in (before, given) if rows is not None and rows.lost is not None), None)
    if ended is not None:
        return ended
    if given is None:  # constants are anybody's, and stay so
        return before or _marked(index)
    assert source is not None
    if not _advanced(index):
        return _by_slices(target, before, index, given, source, samples)
    if not target.dim() or (before is not None and before.axis is None):
        return lost("writing by index")
    guess = before or REGULAR  # an order in which the constants may be the samples'
    axis = guess.axis or 0
    numbers = guess.numbers(target.shape[axis], samples)
    numbers = torch.full((target.shape[axis],), -1) if numbers is None else numbers
    own = _numbered(Rows(axis, numbers), target, index, samples)
    theirs = _spread_numbers(given, source, own, samples)
    if own is None or theirs is None or source.dim() != own.dim() + target.dim() - _depth(index, target, axis):
        return lost("writing by index")
    if bool(((own == theirs) | (theirs < 0)).all()):
        return before if before is not None else simplified(axis, numbers, samples)
    if before is None and own.dim() == 1 and not isinstance(index, tuple):
        return _filled(target, index, theirs, samples)
    return lost("writing by index")


def _marked(index: Any) -> Rows:
    """Constants into which constants are written where samples say: at a mask, as the mask is."""
    parts = index if isinstance(index, tuple) else (index,)
    known = [rows_of(part) for part in parts if rows_of(part) not in (None, BLANK)]
    if not known:
        return BLANK
    mask = isinstance(parts[0], Tensor) and parts[0].dtype == torch.bool and len(parts) == 1
    return known[0] or BLANK if mask else lost("writing by index")


def _by_slices(target: Tensor, before: Rows | None, index: Any, given: Rows, source: Tensor, samples: int) -> Rows:
    """Of an index of numbers, slices and new axes: the samples go to one axis, or all to one entry of an axis."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if any(isinstance(part, bool) for part in parts):
        return lost("writing by index")
    left = target.dim() - sum(_axes(part) for part in parts if part is not Ellipsis)
    place = next((k for k, part in enumerate(parts) if part is Ellipsis), len(parts))
    parts[place : place + 1] = [slice(None)] * left
    used = [part for part in parts if part is not None]  # one for each axis of the target
    view: list[int | None] = []  # the target's axis of each axis of what is written to; None for a new one
    axes = iter(range(target.dim()))
    for part in parts:
        axis = None if part is None else next(axes)
        if part is None or isinstance(part, slice):
            view.append(axis)
    if given.axis is None:
        numbered = [number for number, part in enumerate(used) if not isinstance(part, slice)]
        axis, theirs = numbered[0] if len(numbered) == 1 else None, given.of
    else:
        behind = source.dim() - given.axis
        axis = view[-behind] if behind <= len(view) else None
        theirs = given.numbers(source.shape[given.axis], samples)
    if axis is None or theirs is None or (before is not None and before.axis != axis):
        return lost("writing by index")
    own = None if before is None else before.numbers(target.shape[axis], samples)
    own = torch.full((target.shape[axis],), -1) if before is None else own
    if own is None or own[used[axis]].numel() != len(theirs):
        return lost("writing by index")
    old = own[used[axis]]
    if not bool(((old < 0) | (theirs < 0) | (old == theirs)).all()):
        return lost("writing by index")
    now = own.clone()
    now[used[axis]] = torch.maximum(old, theirs.reshape(old.shape))
    return before if before is not None and torch.equal(now, own) else simplified(axis, now, samples)


def _depth(index: Any, target: Tensor, axis: int) -> int:
    """How many of the target's axes `_numbered` looks at."""
    parts = index if isinstance(index, tuple) else (index,)
    if any(part is Ellipsis for part in parts):
        return target.dim()
    return max(sum(map(_axes, parts)), axis + 1)


def scattered(name: str, target: Tensor, dim: int, index: Tensor, source: Any, samples: int) -> Rows:
    """`scatter(dim, index, source)`, `index_add(dim, index, source)` and their like."""
    before, given = _owned(target), _owned(source) if isinstance(source, Tensor) else None
    chosen = _owned(index) if index.dim() == target.dim() and "scatter" in name else None
    known = [(each, rows) for each, rows in ((target, before), (source, given), (index, chosen)) if rows is not None]
    ended = next((rows for _, rows in known if rows.lost is not None), None)
    if ended is not None or not known:
        return ended or BLANK
    first = known[0][1]
    if first.axis is not None and all(rows.axis == first.axis != dim and same(rows, first) for _, rows in known):
        fits = all(each.shape[first.axis] == target.shape[first.axis] for each, _ in known)
        return first if fits else lost(name)
    if given is None and chosen is None:
        return first  # constants into rows of samples
    if dim or given is None or not isinstance(source, Tensor):
        return lost(name)
    if index.dim() > 1:  # scatter: by whole rows
        lines = index.flatten(1)
        if not lines.shape[1] or not bool((lines == lines[:, :1]).all()):
            return lost(name)
        source, index = source[: len(lines)], lines[:, 0]
    return added(target, index, source, samples, given)


def added(target: Tensor, index: Tensor, source: Tensor, samples: int, given: Rows | None = None) -> Rows:
    """`index_add(0, index, source)`, and the like along the first axis: every row may only get rows of its sample."""
    before, given = _owned(target), given or _owned(source)
    if given is None or given.lost is not None:
        return given or before or BLANK
    if before is not None and before.lost is not None:
        return before
    numbers = given.numbers(source.shape[0], samples) if given.axis == 0 else None
    if given.axis is None and given.of is not None:
        numbers = given.of[:1].expand(source.shape[0])
    places = index.detach().cpu()
    if numbers is None or places.dim() != 1 or source.dim() != target.dim() or len(places) != len(numbers):
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
    axis = 0 if batch_first else 1
    numbers = rows.numbers(x.shape[axis], samples) if rows.axis == axis else None
    return lost("packing") if numbers is None else Rows(0, torch.cat([numbers[:size] for size in sizes.tolist()]))


def padded(rows: Rows, sizes: Tensor, batch_first: bool, samples: int) -> Rows:
    """`pad_packed_sequence`: the way back."""
    if rows.axis != 0 or rows.of is None:
        return lost("padding")
    return simplified(0 if batch_first else 1, rows.of[: int(sizes[0])], samples)


def split(rows: Rows, x: Tensor, sizes: Sequence[int], dim: int, samples: int) -> list[Rows]:
    """`split`, `chunk` and `unbind` into pieces of these sizes."""
    if rows.axis is None or dim % x.dim() != rows.axis:
        return [rows] * len(sizes)
    numbers = rows.numbers(x.shape[rows.axis], samples)
    if numbers is None:
        return [lost("split")] * len(sizes)
    return [simplified(rows.axis, piece, samples) for piece in torch.split(numbers, list(sizes))]
