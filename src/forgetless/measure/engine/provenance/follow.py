"""`follow`: what is known of an operation's results, from what is known of its arguments."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from forgetless.measure.engine.provenance import aligned, names, routing, shapes
from forgetless.measure.engine.provenance.rows import ALONE, BLANK, Rows, alias, lost, note, rows_of, same, simplified
from forgetless.measure.engine.provenance.views import rewritten
from forgetless.model import batches


def follow(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], result: Any, samples: int) -> None:
    """Note what is known of the results of `func(*args, **kwargs)`, at least one of whose arguments is of samples."""
    name = name_of(func)
    results = list(batches.tensors(result))
    if samples == 1:
        for tensor in results:
            note(tensor, ALONE)
        return
    if not args and isinstance(kwargs.get("input"), Tensor):
        args, kwargs = (kwargs["input"],), {key: value for key, value in kwargs.items() if key != "input"}
    if name in ("detach", "data") and results:
        alias(results[0], args[0])
    if name == "data" and len(args) > 1:  # set: another memory under the old name
        note(args[0], rows_of(args[1]) or BLANK)
    inside = names.writes(name) and args and isinstance(args[0], Tensor)
    target = args[0] if inside else kwargs.get("out")
    before = rows_of(target)
    if inside and name == "__setitem__":
        results = [args[0]]
    try:
        found = _followed(name, args, kwargs, results, samples) if _is_torchs(func, name) else lost(name)
    except (TypeError, ValueError, LookupError, RuntimeError, AttributeError, StopIteration):
        found = lost(name)  # a rule that cannot read the arguments knows nothing
    each = found if isinstance(found, list) else [found] * len(results)
    for tensor, rows in zip(results, each, strict=True):
        rows = _fitting(name, rows, tensor, samples)
        if tensor is target:
            rewritten(tensor, before, rows, samples)
        else:
            note(tensor, rows)


def _followed(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any], results: Sequence[Tensor], samples: int
) -> list[Rows] | Rows:
    sources = [each for each in batches.tensors((list(args), dict(kwargs))) if rows_of(each) not in (None, BLANK)]
    if not sources:
        return BLANK  # constants, whatever is done to them
    x = args[0] if args and isinstance(args[0], Tensor) else None
    rows = rows_of(x)
    if name in names.SIZED:
        return BLANK
    if names.is_among(name, names.CONSTANT):
        return BLANK if all(each is x for each in sources) else lost(name)
    if name in names.WRITING and x is not None:
        return _written(name, args, kwargs, samples)
    if name in names.JOINING:
        return _joined(name, args, kwargs, samples)
    found: list[Rows] | Rows | None = (
        _OWN_FORMS[name](name, args, kwargs, results, samples) if name in _OWN_FORMS else None
    )
    if found is not None:
        return found
    if name in _SEVERAL:
        places = _SEVERAL[name](name, args, kwargs, results[0])
        return lost(name) if places is None else aligned.met(name, places, results[0], samples)
    if x is not None and rows is not None and rows is not BLANK and name in _ONE:
        found = _ONE[name](name, rows, x, args[1:], kwargs, results, samples) if rows.lost is None else rows
        assert found is not None
        return found
    if names.is_among(name, names.LIKE) and x is not None:
        return BLANK if rows is None else aligned.met(name, aligned.broadcast([x], results[0]), results[0], samples)
    if names.is_among(name, names.POINTWISE):
        return [aligned.met(name, aligned.broadcast(sources, each), each, samples) for each in results]
    if name in routing.LOOKUPS and x is not None and rows in (None, BLANK):
        return routing.LOOKUPS[name](x, args[1:], kwargs, results[0], samples)
    return lost(name)


def _fitting(name: str, rows: Rows, result: Tensor, samples: int) -> Rows:
    """The rows, if the result has such an axis: no rule may say more than that."""
    if rows.axis is None or rows.lost is not None:
        return rows
    length = result.shape[rows.axis] if rows.axis < result.dim() else -1
    fits = length >= 0 and (length % samples == 0 if rows.of is None else length == len(rows.of))
    return rows if fits else lost(name)


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
    source = args[3] if len(args) > 3 else kwargs.get("source", kwargs.get("src", kwargs.get("value")))
    if not isinstance(dim, int) or not isinstance(index, Tensor) or not target.dim():
        return lost(name)
    return routing.scattered(name, target, dim % target.dim(), index, source, samples)


def _joined(name: str, args: Sequence[Any], kwargs: Mapping[str, Any], samples: int) -> Rows:
    parts = [(part, rows_of(part)) for part in (args[0] if args else kwargs["tensors"])]
    dim = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0))
    if name.endswith("stack") and name != "stack":
        return shapes.piled(name, parts, samples)
    return (shapes.stacked if name == "stack" else shapes.joined)(parts, dim, samples)


# -- operations with forms of their own: (name, args, kwargs, results, samples) → rows, or None for the usual form


def _where(name: str, args: Sequence[Any], kwargs: Any, results: Any, samples: int) -> Rows | None:
    """Of a condition alone: the places where it holds."""
    if len(args) + len(kwargs) > 1:
        return None
    rows = rows_of(args[0])
    assert rows is not None
    return rows if rows.lost is not None else _nonzero(name, rows, args[0], (), kwargs, results, samples)


def _broadcast_tensors(name: str, args: Sequence[Any], kwargs: Any, results: Any, samples: int) -> list[Rows]:
    given = args[0] if isinstance(args[0], (list, tuple)) else args
    each = zip(given, results, strict=True)
    return [aligned.met(name, aligned.broadcast([x], wide), wide, samples) for x, wide in each]


def _bags(name: str, args: Sequence[Any], kwargs: Any, results: Any, samples: int) -> list[Rows] | None:
    """`torch.embedding_bag`, whose table comes first; `F.embedding_bag` is a layer."""
    if not args[0].is_floating_point():
        return None
    table, indices, offsets = args[:3]
    known = rows_of(table) in (None, BLANK)
    bags = routing.bagged(indices, offsets, len(results[0]), samples) if known else lost(name)
    return [bags, *[lost(name)] * (len(results) - 1)]


_OWN_FORMS: dict[str, Callable[..., Any]] = {
    "where": _where,
    "broadcast_tensors": _broadcast_tensors,
    "embedding_bag": _bags,
}


# -- operations on several tensors: (name, args, kwargs, result) → where the samples of each are in the result


def _product(name: str, args: Sequence[Any], kwargs: Any, result: Tensor) -> list[aligned.Place]:
    return aligned.product(name, args[0], args[1] if len(args) > 1 else _other(kwargs), result)


def _product_added(name: str, args: Sequence[Any], kwargs: Any, result: Tensor) -> list[aligned.Place]:
    words = (("mat1", "mat2"), ("batch1", "batch2"), ("mat", "vec"))
    one, two = args[1:3] if len(args) > 2 else next((kwargs[x], kwargs[y]) for x, y in words if x in kwargs)
    return [*aligned.broadcast([args[0]], result), *aligned.product(name, one, two, result)]


def _other(kwargs: Any) -> Tensor:
    return next(kwargs[key] for key in ("other", "mat2", "vec") if key in kwargs)  # type: ignore[no-any-return]


def _einsum(name: str, args: Sequence[Any], kwargs: Any, result: Tensor) -> list[aligned.Place] | None:
    return aligned.einsum(args[0], args[1] if isinstance(args[1], (list, tuple)) else args[1:])


def _tensordot(name: str, args: Sequence[Any], kwargs: Any, result: Tensor) -> list[aligned.Place] | None:
    return aligned.tensordot(*args[:4]) if len(args) > 3 else None


def _distances(name: str, args: Sequence[Any], kwargs: Any, result: Tensor) -> list[aligned.Place]:
    a, b = args[:2]
    places = aligned.product(name, a, b, result)  # as a @ b.mT, …
    axis = aligned.axis_of(b)
    if axis is not None and axis >= b.dim() - 2:  # … whose last two axes are the other way round
        places[1] = (b, result.dim() - 1 if axis == b.dim() - 2 else None)
    return places


def _layer_of_several(name: str, args: Sequence[Any], kwargs: Any, result: Tensor) -> list[aligned.Place]:
    tensors = batches.tensors((list(args), dict(kwargs)))
    core = aligned.SEVERAL[name]
    own = [each for each in tensors if rows_of(each) is not None]
    return aligned.broadcast(own, result, core)


def _searched(name: str, args: Sequence[Any], kwargs: Any, result: Tensor) -> list[aligned.Place]:
    """One sorted table for all values, `[B]`, or a table for every row of values, `[…, B]` and `[…, V]`."""
    own = [each for each in batches.tensors((list(args), dict(kwargs))) if rows_of(each) not in (None, BLANK)]
    table = args[0] if args else kwargs["sorted_sequence"]
    return aligned.broadcast(own, result, 0 if table.dim() == 1 and all(each is not table for each in own) else 1)


def _embedding(name: str, args: Sequence[Any], kwargs: Any, result: Tensor) -> list[aligned.Place] | None:
    table, index = sorted(args[:2], key=Tensor.is_floating_point, reverse=True)  # `F.embedding` has them the other way
    return aligned.broadcast([index], result, 0, 1) if rows_of(table) in (None, BLANK) else None


def _grouped(name: str, args: Sequence[Any], kwargs: Any, result: Tensor) -> list[aligned.Place] | None:
    """Rows `[R, I]` that are sorted by their matrix, `[E, I, O]`: each stays where it is."""
    rows, matrices = args[:2]
    if rows.dim() != 2 or matrices.dim() != 3 or rows_of(matrices) not in (None, BLANK):
        return None
    return [(rows, 0 if aligned.axis_of(rows) == 0 else None)]


def _loss_of_each(name: str, args: Sequence[Any], kwargs: Any, result: Tensor) -> list[aligned.Place]:
    """Logits `[N, C, …]` and targets `[N, …]` → `[N, …]`."""
    own = [each for each in batches.tensors((list(args), dict(kwargs))) if rows_of(each) not in (None, BLANK)]
    return [(each, 0 if aligned.axis_of(each) == 0 and each.dim() > 0 else None) for each in own]


_SEVERAL: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(aligned.PRODUCTS, _product),
    **dict.fromkeys(aligned.PRODUCTS_ADDED, _product_added),
    **dict.fromkeys(aligned.SEVERAL, _layer_of_several),
    "einsum": _einsum,
    "tensordot": _tensordot,
    **dict.fromkeys(("cdist", "_euclidean_dist"), _distances),
    "embedding": _embedding,
    "searchsorted": _searched,
    "_grouped_mm": _grouped,
    **dict.fromkeys(("cross_entropy_loss", "nll_loss_nd", "nll_loss", "nll_loss2d"), _loss_of_each),
}

# -- operations on one tensor: (name, rows, x, the other arguments, kwargs, results, samples) → rows


def _reshape(name: str, rows: Rows, x: Tensor, rest: Any, kwargs: Any, results: Any, samples: int) -> Rows:
    return shapes.reshaped(rows, x.shape, results[0].shape, samples)


def _move(name: str, rows: Rows, x: Tensor, rest: Any, kwargs: Any, results: Any, samples: int) -> Rows:
    return shapes.MOVING[name](rows, x, *rest, **kwargs)


def _reduce(name: str, rows: Rows, x: Tensor, rest: Any, kwargs: Any, results: Any, samples: int) -> Rows:
    if rest and isinstance(rest[0], Tensor):  # the larger of two
        return aligned.met(name, aligned.broadcast([x, rest[0]], results[0]), results[0], samples)
    return shapes.reduced(rows, x, shapes.dims_of(name, rest, kwargs), results[0].dim() == x.dim())


def _index(name: str, rows: Rows, x: Tensor, rest: Any, kwargs: Any, results: Any, samples: int) -> Rows:
    return routing.indexed(rows, x, rest[0], samples)


def _dim_and_index(name: str, rows: Rows, x: Tensor, rest: Any, kwargs: Any, results: Any, samples: int) -> Rows:
    if name == "take_along_dim":
        index = rest[0] if rest else kwargs["indices"]
        dim = rest[1] if len(rest) > 1 else kwargs.get("dim")
        wide = None if dim is None else routing.along(index, x, dim)
        return lost(name) if wide is None else routing.gathered(rows, x, dim, wide, samples)
    dim = rest[0] if rest else kwargs["dim"]
    index = rest[1] if len(rest) > 1 else kwargs["index"]
    rule = routing.selected if name == "index_select" else routing.gathered
    return rule(rows, x, dim, index, samples)


def _mask_select(name: str, rows: Rows, x: Tensor, rest: Any, kwargs: Any, results: Any, samples: int) -> Rows:
    mask = rest[0] if rest else kwargs["mask"]
    wide, _ = torch.broadcast_tensors(x.detach(), mask)  # type: ignore[no-untyped-call]
    return routing.indexed(rows, x, mask.expand(x.shape), samples) if wide.shape == x.shape else lost(name)


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
    dim = kwargs.get("dim", numbers[-1] if len(numbers) > (name == "topk" and "k" not in kwargs) else -1)
    if name == "argsort":
        return routing.ordered(rows, x, results[0], dim, samples, name)[1]
    return list(routing.ordered(rows, x, results[1], dim, samples, name))


def _split(name: str, rows: Rows, x: Tensor, rest: Any, kwargs: Any, results: Any, samples: int) -> list[Rows]:
    if name == "unbind":
        dim = rest[0] if rest else kwargs.get("dim", 0)
        if rows.axis is not None and dim % x.dim() == rows.axis:
            numbers = rows.numbers(x.shape[rows.axis], samples)
            return [lost(name) if numbers is None else Rows(None, numbers[i : i + 1]) for i in range(len(results))]
        return [shapes.reduced(rows, x, dim, False)] * len(results)
    dim = rest[1] if len(rest) > 1 else kwargs.get("dim", 0)
    return routing.split(rows, x, [piece.shape[dim] for piece in results], dim, samples)


def _flip(name: str, rows: Rows, x: Tensor, rest: Any, kwargs: Any, results: Any, samples: int) -> Rows:
    if rows.axis is None:
        return rows
    numbers = rows.numbers(x.shape[rows.axis], samples)
    if numbers is None:
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


def _along(name: str, rows: Rows, x: Tensor, rest: Any, kwargs: Any, results: Any, samples: int) -> Rows:
    place, otherwise = aligned.ALONG[name]
    if _beside(rest, kwargs):
        return lost(name)  # diff(…, prepend=…)
    dim = kwargs.get("dim", kwargs.get("axis", rest[place] if len(rest) > place else otherwise))
    mixed = range(x.dim()) if dim is None else [each % max(1, x.dim()) for each in _sequence(dim)]
    return lost(name) if rows.axis in mixed else rows


def _beside(rest: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether an argument after the first is of samples too: a weight that they make, say."""
    return any(rows_of(other) not in (None, BLANK) for other in batches.tensors((list(rest), dict(kwargs))))


def _layer(name: str, rows: Rows, x: Tensor, rest: Any, kwargs: Any, results: Any, samples: int) -> Rows:
    if _beside(rest, kwargs):
        return lost(name)
    return rows if rows.axis is None or rows.axis < x.dim() - aligned.LAYERS[name](x, rest, kwargs) else lost(name)


def _unfold(name: str, rows: Rows, x: Tensor, rest: Any, kwargs: Any, results: Any, samples: int) -> Rows:
    dim = rest[0] if rest else kwargs["dimension"]
    return rows if rows.axis is None or dim % x.dim() != rows.axis else lost(name)


def _likeness(name: str, rows: Rows, x: Tensor, rest: Any, kwargs: Any, results: Any, samples: int) -> Rows:
    other = rest[0] if rest else kwargs["x2"]
    both, _ = torch.broadcast_tensors(x.detach(), other)  # type: ignore[no-untyped-call]
    known = aligned.met(name, aligned.broadcast([x, other], both), both, samples)
    return shapes.reduced(known, both, kwargs.get("dim", rest[1] if len(rest) > 1 else 1), False)


def _nonzero(name: str, rows: Rows, x: Tensor, rest: Any, kwargs: Any, results: Any, samples: int) -> Rows:
    places = torch.stack([each.flatten() for each in results], 1) if results[0].dim() < 2 else results[0]
    return routing.found(rows, x, places, samples) if x.dim() else lost(name)


def _recur(name: str, rows: Rows, x: Tensor, rest: Any, kwargs: Any, results: Any, samples: int) -> list[Rows] | Rows:
    """A recurrent layer: steps of a packed sequence stay whose they are; its last states are in another order."""
    if _beside(rest[2:] if _is_packed(rest) else rest[1:], kwargs):
        return lost(name)
    if _is_packed(rest):
        return [rows, *[lost(name)] * (len(results) - 1)]
    first = [rows_of(state) for state in batches.tensors(rest[0])]  # [layers, N, …]
    alike = all(each in (None, BLANK) or (each.axis == 1 and same(each, rows)) for each in first)
    if len(rest) != 8 or rows.axis != (0 if rest[7] else 1) or x.dim() != 3 or not alike:
        return lost(name)
    return [rows, *[rows.at(1)] * (len(results) - 1)]


def _is_packed(rest: Sequence[Any]) -> bool:
    """Whether a recurrent layer's arguments after its input begin with the sizes of a packed sequence."""
    return isinstance(rest[0], Tensor) and not rest[0].is_floating_point()


def _pack(name: str, rows: Rows, x: Tensor, rest: Any, kwargs: Any, results: Any, samples: int) -> list[Rows]:
    if name == "_pack_padded_sequence":
        return [routing.packed(rows, x, results[1], bool(rest[1]), samples), lost(name)]
    return [routing.padded(rows, rest[0], bool(rest[1]), samples), lost(name)]


_ONE: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(aligned.LAYERS, _layer),
    **dict.fromkeys(aligned.ALONG, _along),
    **dict.fromkeys(shapes.RESHAPING, _reshape),
    **dict.fromkeys(shapes.MOVING, _move),
    **dict.fromkeys(shapes.REDUCING, _reduce),
    "__getitem__": _index,
    **dict.fromkeys(("index_select", "gather", "take_along_dim"), _dim_and_index),
    "masked_select": _mask_select,
    **dict.fromkeys(("select", "narrow"), _select),
    "repeat_interleave": _repeat,
    **dict.fromkeys(("repeat", "tile", "expand", "broadcast_to"), _tile),
    **dict.fromkeys(("sort", "topk", "argsort"), _sort),
    **dict.fromkeys(("split", "split_with_sizes", "chunk", "tensor_split", "unbind", "unsafe_chunk"), _split),
    **dict.fromkeys(("flip", "roll"), _flip),
    **dict.fromkeys(("nonzero", "argwhere"), _nonzero),
    "unfold": _unfold,
    "cosine_similarity": _likeness,
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recur),
    **dict.fromkeys(("_pack_padded_sequence", "_pad_packed_sequence"), _pack),
}


@cache
def name_of(func: Callable[..., Any]) -> str:
    """An operation's name, the same for a function and a method; of a property its own."""
    name = getattr(func, "__name__", str(func))
    owner = getattr(func, "__self__", None)
    return getattr(owner, "__name__", name) if name in ("__get__", "__set__") else name


@cache
def _is_torchs(func: Callable[..., Any], name: str) -> bool:
    """Whether it is one of torch's own operations; others of the same name may do anything."""
    if isinstance(func, (torch._ops.OpOverload, torch._ops.OpOverloadPacket)):
        return str(func).startswith("aten")
    return not isinstance(func, types.FunctionType) or func.__module__.partition(".")[0] == "torch"
