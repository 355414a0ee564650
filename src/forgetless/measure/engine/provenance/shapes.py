"""Operations that rearrange axes: what happens to the axis of the samples.

Each rule takes the operation's own arguments after what is known of its input, and gives what is known of its result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from forgetless.measure.engine.provenance.rows import ANYWHERE, BLANK, Rows, lost, simplified

Rule = Callable[..., Rows]
_LARGEST = 1 << 20  # numbers of samples that a reshape may write out


def reshaped(rows: Rows, before: Sequence[int], after: Sequence[int], samples: int) -> Rows:
    """A view or reshape: the axis stays, is split, or is merged with its neighbors."""
    axis = rows.axis
    if rows is ANYWHERE:
        return _reshaped_anywhere(before, after, samples)
    if axis is None or rows.lost is not None:
        return rows
    outer, length = math.prod(before[:axis]), before[axis]
    total = 1
    for place, size in enumerate(after):
        if total == outer and size == length and length > 1:
            return rows.at(place)
        if total == outer and size > 1 and length > 1 and size % length == 0:
            inner = math.prod(before[axis + 1 :])
            if inner % (size // length) == 0:  # merged with axes inside: so many entries for each before
                if rows.of is None:
                    return rows.at(place)
                return simplified(place, rows.of.repeat_interleave(size // length), samples)
        total *= size
    return _regrouped(rows, axis, before, after, samples)


def _reshaped_anywhere(before: Sequence[int], after: Sequence[int], samples: int) -> Rows:
    """Still regular along some axis if it would be from any that may be the samples'; else no longer known."""
    for axis, length in enumerate(before):
        if length % samples:
            continue
        order = torch.arange(samples)
        for of in (None, order.repeat(length // samples)):  # in the batch's order, or copies of the batch
            if reshaped(Rows(axis, of), before, after, samples).lost is not None:
                return lost("reshape")
    return ANYWHERE


def _regrouped(rows: Rows, axis: int, before: Sequence[int], after: Sequence[int], samples: int) -> Rows:
    """Any other: the samples' numbers are reshaped, with those axes that are mixed with theirs."""
    if rows.of is not None and len(rows.of) and bool((rows.of == rows.of[0]).all()):  # one sample's alone
        return Rows(0, rows.of[:1].expand(after[0])) if len(after) else Rows(None, rows.of[:1])
    if 0 in after:  # nothing is anybody's
        return Rows(list(after).index(0), torch.zeros(0, dtype=torch.int64))
    unknown = ANYWHERE if rows.of is None else lost("reshape")
    numbers = rows.numbers(before[axis], samples)
    if numbers is None:
        return unknown
    (first, last), (start, stop) = _group(axis, before, after)
    if math.prod(before[first:last]) > _LARGEST:
        return unknown
    shape = [1] * (last - first)
    shape[axis - first] = len(numbers)
    spread = numbers.view(shape).expand(list(before[first:last])).reshape(list(after[start:stop]))
    found = described(spread, samples)
    return lost("reshape") if found is None or found.axis is None else found.at(start + found.axis)


def described(numbers: Tensor, samples: int) -> Rows | None:
    """Rows of a tensor whose every element's sample is given: along one axis, all else being of the same sample."""
    for axis in range(numbers.dim()):
        line = _highest(numbers, axis)
        wide = line.view([-1 if other == axis else 1 for other in range(numbers.dim())])
        if bool(((numbers == wide) | (numbers < 0)).all()):
            return simplified(axis, line, samples)
    return None


def _group(axis: int, before: Sequence[int], after: Sequence[int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """The fewest axes around `axis`, and those after, that hold the same elements: `[first, last)`, `[start, stop)`."""
    ends_before = [math.prod(before[:k]) for k in range(len(before) + 1)]
    ends_after = [math.prod(after[:k]) for k in range(len(after) + 1)]
    shared = [each for each in ends_before if each in ends_after]
    low = max(each for each in shared if each <= ends_before[axis])
    high = min(each for each in shared if each >= ends_before[axis + 1])
    first = max(k for k in range(axis + 1) if ends_before[k] == low)
    last = min(k for k in range(axis + 1, len(before) + 1) if ends_before[k] == high)
    start = ends_after.index(low)
    return (first, last), (start, max(start, ends_after.index(high)))


def _highest(numbers: Tensor, axis: int) -> Tensor:
    """The highest number at each entry along an axis."""
    return numbers.movedim(axis, 0).flatten(1).max(1).values if numbers.dim() > 1 else numbers


def moved(rows: Rows, order: Sequence[int]) -> Rows:
    """A permutation of axes: new axis i is old axis `order[i]`."""
    return rows if rows.axis is None else rows.at(list(order).index(rows.axis))


def _permute(rows: Rows, x: Tensor, *dims: Any) -> Rows:
    given = dims[0] if len(dims) == 1 and isinstance(dims[0], (tuple, list)) else dims
    return moved(rows, [dim % x.dim() for dim in given])


def _transpose(rows: Rows, x: Tensor, first: int, second: int) -> Rows:
    order = list(range(x.dim()))
    first, second = first % x.dim(), second % x.dim()
    order[first], order[second] = order[second], order[first]
    return moved(rows, order)


def _reversed(rows: Rows, x: Tensor) -> Rows:
    return moved(rows, list(range(x.dim()))[::-1])


def _last_two(rows: Rows, x: Tensor) -> Rows:
    return _transpose(rows, x, -2, -1)


def _movedim(rows: Rows, x: Tensor, source: Any, destination: Any) -> Rows:
    source = [source] if isinstance(source, int) else list(source)
    destination = [destination] if isinstance(destination, int) else list(destination)
    places = {to % x.dim(): dim % x.dim() for dim, to in zip(source, destination, strict=True)}
    rest = iter(dim for dim in range(x.dim()) if dim not in places.values())
    return moved(rows, [places[dim] if dim in places else next(rest) for dim in range(x.dim())])


def _unsqueeze(rows: Rows, x: Tensor, dim: int) -> Rows:
    place = dim % (x.dim() + 1)
    return rows if rows.axis is None else rows.at(rows.axis + (place <= rows.axis))


def reduced(rows: Rows, x: Tensor, dim: Any = None, keepdim: bool = False) -> Rows:
    """A reduction over axes: the samples' axis must not be one of them, unless all its entries are one sample's."""
    if rows.axis is None:
        return rows
    dims = range(x.dim()) if dim is None or dim == () else [dim] if isinstance(dim, int) else dim
    gone = {each % x.dim() for each in dims}
    if rows.axis in gone:
        if rows.of is not None and len(rows.of) and bool((rows.of == rows.of[0]).all()):
            return Rows(None, rows.of[:1])  # what is left is that sample's
        return lost("a reduction over samples")
    return rows if keepdim else rows.at(rows.axis - sum(each < rows.axis for each in gone))


def repeated(rows: Rows, before: Sequence[int], after: Sequence[int], samples: int) -> Rows:
    """`repeat`, `tile` and `expand`: one after another along every axis, new axes in front."""
    if rows.axis is None or rows.lost is not None:
        return rows
    axis = rows.axis + len(after) - len(before)
    length = before[rows.axis]
    if after[axis] == length:
        return rows.at(axis)
    numbers = rows.numbers(length, samples)
    if numbers is None:
        return lost("repeat")
    return simplified(axis, numbers.repeat(after[axis] // length if length else 1), samples)


MOVING: dict[str, Rule] = {
    "permute": _permute,
    **dict.fromkeys(("transpose", "swapaxes", "swapdims", "transpose_"), _transpose),
    **dict.fromkeys(("t", "T", "numpy_T"), _reversed),
    **dict.fromkeys(("mT", "mH", "adjoint", "H"), _last_two),
    **dict.fromkeys(("movedim", "moveaxis"), _movedim),
    **dict.fromkeys(("unsqueeze", "unsqueeze_"), _unsqueeze),
}
RESHAPING = frozenset(
    {"view", "reshape", "flatten", "unflatten", "squeeze", "squeeze_", "view_as", "reshape_as", "ravel", "_unsafe_view"}
)
_REDUCING_NAMES = (
    "sum mean amax amin max min prod std var norm logsumexp argmax argmin any all median mode nansum nanmean "
    "count_nonzero std_mean var_mean aminmax nanmedian quantile"
)
REDUCING = frozenset(_REDUCING_NAMES.split())


def dims_of(name: str, args: Sequence[Any], kwargs: Any) -> tuple[Any, bool]:
    """`dim` and `keepdim` of a reduction, from its arguments after the tensor; `(None, False)` for all axes."""
    rest = list(args)
    if name == "norm" and rest:
        rest = rest[1:]  # p comes first
    if name == "logsumexp" and not rest and "dim" not in kwargs:
        return None, False
    dim = kwargs.get("dim", kwargs.get("axis", rest[0] if rest and not isinstance(rest[0], Tensor) else None))
    keepdim = kwargs.get("keepdim", rest[1] if len(rest) > 1 and isinstance(rest[1], bool) else False)
    return dim, bool(keepdim)


def joined(parts: Sequence[tuple[Tensor, Rows | None]], dim: int, samples: int) -> Rows:
    """`cat` along an axis: of another axis than the samples' all must agree; along it, rows follow each other."""
    known = [rows for _, rows in parts if rows is not None and rows is not BLANK]
    if not known:
        return BLANK
    ended = next((rows for rows in known if rows.lost is not None), None)
    if ended is not None:
        return ended
    place = dim % parts[0][0].dim()
    if any(rows.axis is None for rows in known):
        return ANYWHERE if not any(rows.mapped for rows in known) else lost("cat")
    if all(rows.axis != place for rows in known):
        first = known[0]
        agree = all(rows.axis == first.axis and (rows.of is first.of or _equal(rows, first)) for rows in known)
        return first if agree else lost("cat")
    if len(known) < len(parts) or any(rows.axis != place for rows in known):
        return lost("cat")
    numbers = [rows.numbers(x.shape[place], samples) for (x, _), rows in zip(parts, known, strict=True)]
    found = [each for each in numbers if each is not None]
    return simplified(place, torch.cat(found), samples) if len(found) == len(parts) else lost("cat")


def piled(name: str, parts: Sequence[tuple[Tensor, Rows | None]], samples: int) -> Rows:
    """`vstack`, `hstack` and `dstack`: `cat` of parts that get the axes they lack first."""
    widened, axis = _PILES[name]
    wide = [(widened(x.detach()), x, rows) for x, rows in parts]
    again = [(w, rows and reshaped(rows, x.shape, w.shape, samples)) for w, x, rows in wide]
    return joined(again, min(axis, again[0][0].dim() - 1), samples)


_PILES: dict[str, tuple[Callable[[Tensor], Any], int]] = {
    "vstack": (torch.atleast_2d, 0),
    "hstack": (torch.atleast_1d, 1),
    "dstack": (torch.atleast_3d, 2),
}


def stacked(parts: Sequence[tuple[Tensor, Rows | None]], dim: int, samples: int) -> Rows:
    """`stack`: a new axis; the samples' own where every part is one sample's."""
    known = [rows for _, rows in parts if rows is not None and rows is not BLANK]
    if not known:
        return BLANK
    ended = next((rows for rows in known if rows.lost is not None), None)
    if ended is not None:
        return ended
    place = dim % (parts[0][0].dim() + 1)
    single = [rows.of for rows in known if rows.axis is None and rows.of is not None]
    if len(single) == len(parts):
        return simplified(place, torch.cat(single), samples)
    first = known[0]
    if len(known) == len(parts) and all(rows.axis == first.axis and _equal(rows, first) for rows in known):
        return first if first.axis is None else first.at(first.axis + (place <= first.axis))
    return ANYWHERE if not any(rows.mapped for rows in known) else lost("stack")


def _equal(some: Rows, other: Rows) -> bool:
    if some.of is None or other.of is None:
        return some.of is other.of
    return torch.equal(some.of, other.of)
