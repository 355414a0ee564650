"""Operations that rearrange axes: what happens to the axis of the samples.

Each rule takes the operation's own arguments after what is known of its input, and gives what is known of its result.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from forgetless.measure.engine.provenance.rows import BLANK, Rows, lost, same, simplified

Rule = Callable[..., Rows]
_LARGEST = 1 << 20  # numbers of samples that a reshape may write out


def reshaped(rows: Rows, before: Sequence[int], after: Sequence[int], samples: int) -> Rows:
    """A view or reshape: the axis stays, is split, or is merged with its neighbors."""
    axis = rows.axis
    if axis is None:
        return rows
    if math.prod(before) != math.prod(after):  # seen as another dtype
        return lost("reshape")
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


def _regrouped(rows: Rows, axis: int, before: Sequence[int], after: Sequence[int], samples: int) -> Rows:
    """Any other: the samples' numbers are reshaped, with those axes that are mixed with theirs."""
    if rows.of is not None and len(rows.of) and bool((rows.of == rows.of[0]).all()):  # one sample's alone
        return Rows(0, rows.of[:1].expand(after[0])) if len(after) else Rows(None, rows.of[:1])
    if 0 in after:  # nothing is anybody's
        return Rows(list(after).index(0), torch.zeros(0, dtype=torch.int64))
    numbers = rows.numbers(before[axis], samples)
    (first, last), (start, stop) = _group(axis, before, after)
    if numbers is None or math.prod(before[first:last]) > _LARGEST:
        return lost("reshape")
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


def _permute(rows: Rows, x: Tensor, *places: Any, dims: Any = ()) -> Rows:
    given = places[0] if len(places) == 1 and isinstance(places[0], (tuple, list)) else places or dims
    return moved(rows, [dim % x.dim() for dim in given])


def _swapped(rows: Rows, x: Tensor, *places: int, **words: int) -> Rows:
    return _transpose(rows, x, *places, *words.values())


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


def _diagonal(rows: Rows, x: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Rows:
    gone = (dim1 % x.dim(), dim2 % x.dim())
    return lost("diagonal") if rows.axis in gone else moved(rows, [d for d in range(x.dim()) if d not in gone])


def _diag_embed(rows: Rows, x: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Rows:
    return rows if rows.axis != x.dim() - 1 and (dim1, dim2) == (-2, -1) else lost("diag_embed")


def axes(dim: Any) -> tuple[int, ...]:
    """One axis or several as numbers, whatever kind of integer they are."""
    return (operator.index(dim),) if hasattr(dim, "__index__") else tuple(map(operator.index, dim))


def reduced(rows: Rows, x: Tensor, dim: Any, kept: bool) -> Rows:
    """A reduction over axes: the samples' axis must not be one of them, unless all its entries are one sample's."""
    if rows.axis is None:
        return rows
    gone = {each % x.dim() for each in axes(dim)} if dim is not None else set()
    gone = gone or set(range(x.dim()))
    if rows.axis in gone:
        if rows.of is not None and len(rows.of) and bool((rows.of == rows.of[0]).all()):
            return Rows(None, rows.of[:1])  # what is left is that sample's
        return lost("a reduction over samples")
    return rows if kept else rows.at(rows.axis - sum(each < rows.axis for each in gone))


def repeated(rows: Rows, before: Sequence[int], after: Sequence[int], samples: int) -> Rows:
    """`repeat`, `tile` and `expand`: one after another along every axis, new axes in front."""
    if rows.axis is None:
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
    "diagonal": _diagonal,
    "diag_embed": _diag_embed,
    **dict.fromkeys(("transpose", "swapaxes", "swapdims"), _swapped),
    **dict.fromkeys(("t", "T", "numpy_T"), _reversed),
    **dict.fromkeys(("mT", "mH", "adjoint", "H"), _last_two),
    **dict.fromkeys(("movedim", "moveaxis"), _movedim),
    "unsqueeze": _unsqueeze,
}
RESHAPING = frozenset(
    {"view", "reshape", "flatten", "unflatten", "squeeze", "view_as", "reshape_as", "ravel", "_unsafe_view"}
)
_REDUCING_NAMES = (
    "sum mean amax amin max min prod std var norm logsumexp argmax argmin any all median mode nansum nanmean "
    "count_nonzero std_mean var_mean aminmax nanmedian kthvalue linalg_vector_norm"
)
REDUCING = frozenset(_REDUCING_NAMES.split())


def dims_of(name: str, args: Sequence[Any], kwargs: Any) -> Any:
    """`dim` of a reduction, from its arguments after the tensor; None for all axes."""
    rest = list(args)
    if name in ("norm", "linalg_vector_norm", "kthvalue"):
        first = {"norm": "p", "linalg_vector_norm": "ord", "kthvalue": "k"}[name]
        rest = rest if first in kwargs else rest[1:]
    dim = kwargs.get("dim", kwargs.get("axis", rest[0] if rest else -1 if name in ("kthvalue", "mode") else None))
    return None if isinstance(dim, bool) else dim  # `std(True)`: unbiased


def joined(parts: Sequence[tuple[Tensor, Rows | None]], dim: int, samples: int) -> Rows:
    """`cat` along an axis: of another axis than the samples' all must agree; along it, rows follow each other."""
    known = [rows for _, rows in parts if rows is not None and rows is not BLANK]
    if not known:
        return BLANK
    ended = next((rows for rows in known if rows.lost is not None), None)
    if ended is not None:
        return ended
    parts = [(x, rows) for x, rows in parts if x.shape != (0,)] or parts  # which torch leaves out, of any shape
    known = [rows for _, rows in parts if rows is not None and rows is not BLANK]
    if not known:
        return BLANK
    place = dim % parts[0][0].dim()
    first = known[0]
    if first.axis != place and all(rows.axis == first.axis and same(rows, first) for rows in known):
        return first
    if len(known) < len(parts) or any(rows.axis not in (place, None) for rows in known):
        return lost("cat")
    numbers = [_entries(rows, x.shape[place], samples) for (x, _), rows in zip(parts, known, strict=True)]
    found = [each for each in numbers if each is not None]
    return simplified(place, torch.cat(found), samples) if len(found) == len(parts) else lost("cat")


def _entries(rows: Rows, length: int, samples: int) -> Tensor | None:
    """The sample of every entry along an axis that is joined; all are one sample's where that is what is known."""
    if rows.axis is None and rows.of is not None:
        return rows.of[:1].expand(length)
    return rows.numbers(length, samples)


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
    if all(rows.axis == first.axis and same(rows, first) for rows in known):
        return first if first.axis is None else first.at(first.axis + (place <= first.axis))
    return lost("stack")
