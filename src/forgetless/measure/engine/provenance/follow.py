"""`follow`: what is known of an operation's results, from what is known of its arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from forgetless.measure.engine.provenance import routing, shapes
from forgetless.measure.engine.provenance.rows import ANYWHERE, BLANK, Rows, lost, note, rows_of, same, simplified
from forgetless.measure.engine.provenance.views import rewritten
from forgetless.model import batches


def follow(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], result: Any, samples: int) -> None:
    """Note what is known of the results of `func(*args, **kwargs)`, at least one of whose arguments is of samples."""
    name = name_of(func)
    results = list(batches.tensors(result))
    if samples == 1:  # all rows are that sample's
        for tensor in results:
            note(tensor, ANYWHERE)
        return
    inside = _in_place(name) and args and isinstance(args[0], Tensor)
    target = args[0] if inside else kwargs.get("out")
    before = rows_of(target)
    if name in _WRITING and args and isinstance(args[0], Tensor):
        found = [_written(name, args, kwargs, samples)]
        results = [args[0]] if inside else results
    else:
        found = _followed(func, name, args, kwargs, results, samples)
    for tensor, rows in zip(results, found, strict=True):
        if tensor is target:
            rewritten(tensor, before, rows, samples)
        else:
            note(tensor, rows)


def _in_place(name: str) -> bool:
    """Whether an operation of this name writes to its first argument."""
    return name == "__setitem__" or name in _IN_PLACE or (name.endswith("_") and not name.endswith("__"))


def _followed(
    func: Callable[..., Any],
    name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    results: Sequence[Tensor],
    samples: int,
) -> list[Rows]:
    x = args[0] if args and isinstance(args[0], Tensor) else None
    rows = rows_of(x)
    if name in _CONSTANT:
        return [BLANK] * len(results)
    if name in _JOINING:
        return [_joined(name, args, kwargs, samples)] * len(results)
    if x is not None and rows is not None and name in _ONE:
        found = _ONE[name](name, rows, x, args[1:], kwargs, results, samples)
        return found if isinstance(found, list) else [found] * len(results)
    if not _is_known(func, name):
        return [lost(name)] * len(results)
    sources = [tensor for tensor in batches.tensors((list(args), dict(kwargs))) if rows_of(tensor) is not None]
    return [_kept(name, sources, result, samples) for result in results]


def _kept(name: str, sources: Sequence[Tensor], result: Tensor, samples: int) -> Rows:
    """An operation that treats the samples' axis as one of its own: it stays where it was."""
    found: Rows | None = None
    for source in sources:
        rows = rows_of(source)
        assert rows is not None
        if rows.lost is not None:
            return rows
        if rows.axis is None:
            if rows.of is not None:
                return Rows(None, rows.of) if len(sources) == 1 else lost(name)
            continue
        axis = rows.axis + (result.dim() - source.dim() if name in _BROADCASTING else 0)
        if not 0 <= axis < result.dim() or result.shape[axis] != source.shape[rows.axis]:
            if rows.mapped:
                return lost(name)
            continue
        if found is None or (found.axis == axis and same(found, rows)):
            found = rows.at(axis)
            continue
        merged = _merged(found, rows, result.shape[axis], samples) if found.axis == axis else None
        if merged is None:
            return lost(name)
        found = simplified(axis, merged, samples)
    blank = all(rows_of(source) is BLANK for source in sources)
    return found or (BLANK if blank else ANYWHERE)


def _merged(some: Rows, other: Rows, length: int, samples: int) -> Tensor | None:
    """Each entry's sample by two tensors, of which one may know more; None where they contradict each other."""
    one, two = some.numbers(length, samples), other.numbers(length, samples)
    if one is None or two is None or not bool(((one == two) | (one < 0) | (two < 0)).all()):
        return None
    return torch.maximum(one, two)


def _written(name: str, args: Sequence[Any], kwargs: Mapping[str, Any], samples: int) -> Rows:
    target = args[0]
    if name == "__setitem__":
        source = args[2] if len(args) > 2 and isinstance(args[2], Tensor) else None
        return routing.written(target, args[1], source, samples)
    if name in ("index_put_", "index_put"):
        indices = args[1] if len(args) > 1 else kwargs["indices"]
        source = args[2] if len(args) > 2 else kwargs.get("values")
        accumulates = args[3] if len(args) > 3 else kwargs.get("accumulate", False)
        if not accumulates or not isinstance(source, Tensor):
            return routing.written(target, tuple(indices), source, samples)
        return routing.added(target, indices[0], source, samples) if len(indices) == 1 else lost(name)
    dim = args[1] if len(args) > 1 else kwargs.get("dim")
    index = args[2] if len(args) > 2 else kwargs.get("index")
    source = args[3] if len(args) > 3 else kwargs.get("source", kwargs.get("src"))
    before = rows_of(target)
    before = None if before is BLANK else before
    if not isinstance(dim, int) or not isinstance(index, Tensor) or not isinstance(source, Tensor):
        return before if before is not None and not isinstance(source, Tensor) else lost(name)
    if before is not None and before.axis is not None and dim % target.dim() != before.axis:
        given = rows_of(source)
        return before if given is None or (given.axis == before.axis and same(given, before)) else lost(name)
    if dim % target.dim():
        return rows_of(source) or ANYWHERE
    if index.dim() > 1:  # scatter: by whole rows
        lines = index.flatten(1)
        if not lines.shape[1] or not bool((lines == lines[:, :1]).all()):
            return lost(name)
        index = lines[:, 0]
    return routing.added(target, index, source, samples)


def _joined(name: str, args: Sequence[Any], kwargs: Mapping[str, Any], samples: int) -> Rows:
    parts = [(part, rows_of(part)) for part in args[0]]
    dim = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0))
    if name.endswith("stack") and name != "stack":
        return shapes.piled(name, parts, samples)
    return (shapes.stacked if name == "stack" else shapes.joined)(parts, dim, samples)


# -- operations on one tensor: (name, rows, x, the other arguments, kwargs, results, samples) → rows


def _reshape(name: str, rows: Rows, x: Tensor, rest: Any, kwargs: Any, results: Any, samples: int) -> Rows:
    return shapes.reshaped(rows, x.shape, results[0].shape, samples)


def _move(name: str, rows: Rows, x: Tensor, rest: Any, kwargs: Any, results: Any, samples: int) -> Rows:
    return shapes.MOVING[name](rows, x, *rest, **kwargs)


def _reduce(name: str, rows: Rows, x: Tensor, rest: Any, kwargs: Any, results: Any, samples: int) -> Rows:
    if rows.lost is not None or (rest and isinstance(rest[0], Tensor)):
        return rows if rows.lost is not None else _kept(name, [x, rest[0]], results[0], samples)
    return shapes.reduced(rows, x, *shapes.dims_of(name, rest, kwargs))


def _index(name: str, rows: Rows, x: Tensor, rest: Any, kwargs: Any, results: Any, samples: int) -> Rows:
    return routing.indexed(rows, x, rest[0], samples)


def _dim_and_index(name: str, rows: Rows, x: Tensor, rest: Any, kwargs: Any, results: Any, samples: int) -> Rows:
    if name == "take_along_dim":
        index = rest[0] if rest else kwargs["indices"]
        dim = rest[1] if len(rest) > 1 else kwargs.get("dim")
        return lost(name) if dim is None else routing.gathered(rows, x, dim, index, samples)
    dim = rest[0] if rest else kwargs["dim"]
    index = rest[1] if len(rest) > 1 else kwargs["index"]
    rule = routing.selected if name == "index_select" else routing.gathered
    return rule(rows, x, dim, index, samples)


def _mask_select(name: str, rows: Rows, x: Tensor, rest: Any, kwargs: Any, results: Any, samples: int) -> Rows:
    mask = rest[0] if rest else kwargs["mask"]
    return routing.indexed(rows, x, mask.expand(x.shape), samples)


def _select(name: str, rows: Rows, x: Tensor, rest: Any, kwargs: Any, results: Any, samples: int) -> Rows:
    dim = rest[0] if rest else kwargs["dim"]
    place = rest[1] if len(rest) > 1 else kwargs.get("index", kwargs.get("start"))
    if isinstance(place, Tensor):
        place = int(place)
    if name == "narrow":
        length = rest[2] if len(rest) > 2 else kwargs["length"]
        place = slice(place, place + length) if place >= 0 else slice(place, place + length or None)
    return routing.indexed(rows, x, (*[slice(None)] * (dim % x.dim()), place), samples)


def _repeat(name: str, rows: Rows, x: Tensor, rest: Any, kwargs: Any, results: Any, samples: int) -> Rows:
    repeats = rest[0] if rest else kwargs.get("repeats")
    dim = rest[1] if len(rest) > 1 else kwargs.get("dim")
    return routing.repeated(rows, x, repeats, dim, samples)


def _sort(name: str, rows: Rows, x: Tensor, rest: Any, kwargs: Any, results: Any, samples: int) -> list[Rows] | Rows:
    numbers = [each for each in rest if isinstance(each, int) and not isinstance(each, bool)]
    dim = kwargs.get("dim", numbers[-1] if len(numbers) > (name in ("topk", "kthvalue")) else -1)
    if name == "argsort":
        return routing.ordered(rows, x, results[0], dim, samples, name)[1]
    return list(routing.ordered(rows, x, results[1], dim, samples, name))


def _split(name: str, rows: Rows, x: Tensor, rest: Any, kwargs: Any, results: Any, samples: int) -> list[Rows]:
    if name == "unbind":
        dim = rest[0] if rest else kwargs.get("dim", 0)
        if rows.axis is not None and dim % x.dim() == rows.axis and rows.lost is None:
            numbers = rows.numbers(x.shape[rows.axis], samples)
            return [lost(name) if numbers is None else Rows(None, numbers[i : i + 1]) for i in range(len(results))]
        return [shapes.reduced(rows, x, dim)] * len(results)
    dim = rest[1] if len(rest) > 1 else kwargs.get("dim", 0)
    return routing.split(rows, x, [piece.shape[dim] for piece in results], dim, samples)


def _flip(name: str, rows: Rows, x: Tensor, rest: Any, kwargs: Any, results: Any, samples: int) -> Rows:
    if rows.axis is None or rows.lost is not None:
        return rows
    numbers = rows.numbers(x.shape[rows.axis], samples)
    if numbers is None or name not in ("flip", "roll"):
        return lost(name)
    if name == "roll":
        shifts = _sequence(rest[0] if rest else kwargs["shifts"])
        dims = _sequence(rest[1] if len(rest) > 1 else kwargs.get("dims", ()))
        if not dims:  # of all elements in a row
            return simplified(0, numbers.roll(shifts[0]), samples) if x.dim() == 1 else lost(name)
        by = sum(shift for shift, dim in zip(shifts, dims, strict=True) if dim % x.dim() == rows.axis)
        return simplified(rows.axis, numbers.roll(by), samples)
    dims = _sequence(kwargs["dims"] if "dims" in kwargs else rest[0] if len(rest) == 1 else rest)
    return simplified(rows.axis, numbers.flip(0), samples) if rows.axis in [d % x.dim() for d in dims] else rows


def _sequence(value: Any) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value)


def _tile(name: str, rows: Rows, x: Tensor, rest: Any, kwargs: Any, results: Any, samples: int) -> Rows:
    return shapes.repeated(rows, x.shape, results[0].shape, samples)


def _cumulate(name: str, rows: Rows, x: Tensor, rest: Any, kwargs: Any, results: Any, samples: int) -> Rows:
    dim = rest[0] if rest else kwargs.get("dim", kwargs.get("axis", 0))
    return lost(name) if rows.axis is not None and dim % x.dim() == rows.axis else rows


def _end(name: str, rows: Rows, x: Tensor, rest: Any, kwargs: Any, results: Any, samples: int) -> Rows:
    return lost(name)


def _nonzero(name: str, rows: Rows, x: Tensor, rest: Any, kwargs: Any, results: Any, samples: int) -> Rows:
    places = torch.stack([each.flatten() for each in results], 1) if results[0].dim() < 2 else results[0]
    return routing.found(rows, x, places, samples) if x.dim() else lost(name)


def _recur(name: str, rows: Rows, x: Tensor, rest: Any, kwargs: Any, results: Any, samples: int) -> list[Rows]:
    """A recurrent layer: steps of a packed sequence stay whose they are; its last states are in another order."""
    if x.dim() == 2 and rest and isinstance(rest[0], Tensor) and not rest[0].is_floating_point():
        return [rows, *[lost(name)] * (len(results) - 1)]
    return [_kept(name, [x], result, samples) for result in results]


def _pack(name: str, rows: Rows, x: Tensor, rest: Any, kwargs: Any, results: Any, samples: int) -> list[Rows]:
    if name == "_pack_padded_sequence":
        return [routing.packed(rows, x, results[1], bool(rest[1]), samples), lost(name)]
    return [routing.padded(rows, rest[0], bool(rest[1]), samples), lost(name)]


_ONE: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(shapes.RESHAPING, _reshape),
    **dict.fromkeys(shapes.MOVING, _move),
    **dict.fromkeys(shapes.REDUCING, _reduce),
    "__getitem__": _index,
    **dict.fromkeys(("index_select", "gather", "take_along_dim"), _dim_and_index),
    "masked_select": _mask_select,
    **dict.fromkeys(("select", "narrow"), _select),
    "repeat_interleave": _repeat,
    **dict.fromkeys(("repeat", "tile", "expand", "broadcast_to"), _tile),
    **dict.fromkeys(("sort", "topk", "argsort", "msort", "kthvalue"), _sort),
    **dict.fromkeys(("split", "split_with_sizes", "chunk", "tensor_split", "unbind", "unsafe_chunk"), _split),
    **dict.fromkeys(("flip", "roll", "fliplr", "flipud", "rot90"), _flip),
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp", "diff"), _cumulate),
    **dict.fromkeys(("unique", "unique_consecutive", "bincount", "histc", "take"), _end),
    **dict.fromkeys(("_unique2", "unique_dim", "masked_scatter", "masked_scatter_", "searchsorted", "bucketize"), _end),
    **dict.fromkeys(("nonzero", "argwhere"), _nonzero),
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recur),
    **dict.fromkeys(("_pack_padded_sequence", "_pad_packed_sequence"), _pack),
}
_JOINING = frozenset({"cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack"})
_CONSTANT = frozenset(
    {
        *("new_zeros", "new_ones", "new_full", "new_empty", "zeros_like", "ones_like", "full_like", "empty_like"),
        *("new_tensor", "new_empty_strided", "rand_like", "randn_like", "randint_like"),
    }
)
_WRITING = frozenset(
    {
        *("__setitem__", "index_put_", "index_put", "index_add_", "index_add", "index_copy_", "index_copy"),
        *("scatter_", "scatter", "scatter_add_", "scatter_add", "scatter_reduce_", "scatter_reduce", "index_reduce_"),
    }
)
_IN_PLACE = frozenset(
    ["__iadd__", "__isub__", "__imul__", "__itruediv__", "__ifloordiv__", "__ipow__", "__iand__", "__ior__", "__ixor__"]
)
_BROADCASTING_NAMES = (
    "add sub mul div true_divide multiply subtract divide rsub pow where lerp addcmul addcdiv maximum "
    "minimum atan2 fmod remainder floor_divide eq ne lt le gt ge logical_and logical_or logical_xor "
    "bitwise_and bitwise_or bitwise_xor masked_fill masked_fill_ __add__ __radd__ __sub__ __rsub__ "
    "__mul__ __rmul__ __truediv__ __rtruediv__ __pow__ __rpow__ __and__ __or__ __xor__ __eq__ __ne__ "
    "__lt__ __le__ __gt__ __ge__ __iadd__ __isub__ __imul__ __itruediv__ add_ sub_ mul_ div_ copy_ "
    "expand_as hypot heaviside xlogy logaddexp clamp clamp_min clamp_max "
)
_BROADCASTING = frozenset(_BROADCASTING_NAMES.split())


@cache
def name_of(func: Callable[..., Any]) -> str:
    """An operation's name, the same for a function and a method; of a property its own."""
    name = getattr(func, "__name__", str(func))
    owner = getattr(func, "__self__", None)
    return getattr(owner, "__name__", name) if name in ("__get__", "__set__") else name


@cache
def _known_names() -> frozenset[str]:
    places = (torch, Tensor, torch.nn.functional, torch._C._nn, torch.special, torch.fft, torch.linalg, torch._VF)
    return frozenset(name for place in places for name in dir(place)) | {"fn"}  # "fn": F.max_pool2d and its like


@cache
def _is_known(func: Callable[..., Any], name: str) -> bool:
    """Whether it is one of torch's own operations, which treat samples alike; others may do anything with them."""
    if isinstance(func, (torch._ops.OpOverload, torch._ops.OpOverloadPacket)):
        return str(func).startswith("aten")
    return getattr(func, "__name__", "") == "__get__" or name in _known_names()
