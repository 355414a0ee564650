"""Operations that move rows about, drawn at random for a given tensor: what provenance must follow, or give up on.

Each takes a random generator and a tensor, and gives a function of one tensor of that shape that does the same at every
call. None of them changes its argument.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

Function = Callable[[Tensor], Any]
Make = Callable[[random.Random, Tensor], Function]
OPERATIONS: dict[str, Make] = {}


def operation(make: Make) -> Make:
    """Enter it in the list, under its own name. What torch refuses to do with a tensor is not done."""

    def possible(rng: random.Random, x: Tensor) -> Function:
        function = make(rng, x)
        try:
            function(x)
        except (RuntimeError, IndexError, ValueError):
            return lambda x: x * 1
        return function

    OPERATIONS[make.__name__.strip("_")] = possible
    return possible


def axis_of(rng: random.Random, x: Tensor) -> int:
    """Any axis, counted from either end."""
    return rng.randrange(-x.dim(), x.dim())


def mask_of(rng: random.Random, *shape: int) -> Tensor:
    """A mask of which about two thirds are True."""
    return torch.tensor([rng.random() < 0.66 for _ in range(torch.Size(shape).numel())], dtype=torch.bool).view(shape)


def places(rng: random.Random, below: int, count: int) -> Tensor:
    """So many numbers below `below`."""
    return torch.tensor([rng.randrange(below) for _ in range(count)], dtype=torch.int64)


def order_of(rng: random.Random, length: int) -> Tensor:
    """A permutation."""
    return torch.tensor(rng.sample(range(length), length), dtype=torch.int64)


@operation
def _reshape(rng: random.Random, x: Tensor) -> Function:
    sizes: list[int] = []
    left = x.numel()
    while left > 1 and len(sizes) < 4:
        sizes.append(rng.choice([k for k in range(1, left + 1) if left % k == 0]))
        left //= sizes[-1]
    sizes.append(left)
    return lambda x: x.reshape(sizes)


@operation
def _flatten(rng: random.Random, x: Tensor) -> Function:
    first = rng.randrange(x.dim())
    last = rng.randrange(first, x.dim())
    return lambda x: x.flatten(first, last)


@operation
def _fold_and_back(rng: random.Random, x: Tensor) -> Function:
    """Two axes become one in either order, and two again."""
    if x.dim() < 2:
        return lambda x: x[:, None].flatten(0, 1)
    swap = rng.random() < 0.5

    def function(x: Tensor) -> Tensor:
        wide = x.transpose(0, 1) if swap else x
        return (wide.flatten(0, 1) * 2).view(wide.shape)

    return function


@operation
def _permute(rng: random.Random, x: Tensor) -> Function:
    order = rng.sample(range(x.dim()), x.dim())
    return lambda x: x.permute(order)


@operation
def _moved(rng: random.Random, x: Tensor) -> Function:
    one, other = axis_of(rng, x), axis_of(rng, x)
    way = rng.randrange(4)
    if way == 0:
        return lambda x: x.transpose(one, other)
    if way == 1:
        return lambda x: x.movedim(one, other)
    if way == 2:
        return lambda x: x.unsqueeze(one)
    return lambda x: x.unsqueeze(one).squeeze(one)


def _part(rng: random.Random, size: int) -> Any:
    """One part of an index: a slice, a number, numbers, a mask or nothing at all."""
    kind = rng.randrange(6)
    if kind == 0:
        return slice(rng.randrange(size + 1), None, rng.choice([1, 2])) if size else slice(None)
    if kind == 1 and size:
        return rng.randrange(-size, size)
    if kind == 2 and size:
        return places(rng, size, rng.randint(1, 4))
    if kind == 3:
        return mask_of(rng, size)
    return slice(None)


@operation
def _getitem(rng: random.Random, x: Tensor) -> Function:
    parts: list[Any] = []
    length = rng.randint(1, 4)
    for size in x.shape[: rng.randint(1, x.dim())]:
        part = _part(rng, size)
        if isinstance(part, Tensor):  # several must broadcast against each other
            part = mask_of(rng, size) if any(isinstance(each, Tensor) for each in parts) else part
            taken = part.nonzero().flatten() if part.dtype == torch.bool else part
            part = (taken.repeat(length)[:length] if len(taken) else torch.zeros(length, dtype=torch.int64)) % max(
                1, size
            )
            if not size:
                part = slice(None)
        parts.append(part)
    if rng.random() < 0.3:
        parts.insert(rng.randint(0, len(parts)), None)
    if rng.random() < 0.3:
        parts.append(Ellipsis)
    elif rng.random() < 0.2:
        parts = [Ellipsis, *parts]
        sizes = list(x.shape)[x.dim() - sum(part is not None for part in parts[1:]) :]
        parts[1:] = [_within(part, size) for part, size in zip_sizes(parts[1:], sizes)]
    index = tuple(parts)
    return lambda x: x[index]


def zip_sizes(parts: list[Any], sizes: list[int]) -> list[tuple[Any, int]]:
    """Every part with the size of its axis; `None` takes up none."""
    left = iter(sizes)
    return [(part, 0 if part is None else next(left)) for part in parts]


def _within(part: Any, size: int) -> Any:
    """The part, made to fit an axis of this size."""
    if isinstance(part, Tensor):
        return part % size if size else slice(None)
    return (part % size if size else slice(None)) if isinstance(part, int) else part


@operation
def _mask(rng: random.Random, x: Tensor) -> Function:
    depth = rng.randint(1, x.dim())
    mask = mask_of(rng, *x.shape[:depth])
    return lambda x: x[mask]


@operation
def _mask_by_data(rng: random.Random, x: Tensor) -> Function:
    middle = float(x.detach().median()) * 1.01 if x.numel() else 0.0
    return lambda x: x[x > middle]


@operation
def _masked_select(rng: random.Random, x: Tensor) -> Function:
    mask = mask_of(rng, *x.shape)
    return lambda x: x.masked_select(mask)


@operation
def _order(rng: random.Random, x: Tensor) -> Function:
    order = order_of(rng, len(x))
    return lambda x: x[order]


@operation
def _index_select(rng: random.Random, x: Tensor) -> Function:
    dim = axis_of(rng, x)
    index = places(rng, x.shape[dim], rng.randint(1, 5)) if x.shape[dim] else torch.zeros(0, dtype=torch.int64)
    return lambda x: x.index_select(dim, index)


@operation
def _gather(rng: random.Random, x: Tensor) -> Function:
    dim = axis_of(rng, x)
    if not x.numel():
        return lambda x: x * 1
    whole = rng.random() < 0.5
    line = places(rng, x.shape[dim], x.shape[dim])
    shape = [-1 if axis == dim % x.dim() else 1 for axis in range(x.dim())]
    index = line.view(shape).expand(x.shape) if whole else places(rng, x.shape[dim], x.numel()).view(x.shape)
    return (lambda x: x.gather(dim, index)) if rng.random() < 0.5 else lambda x: x.take_along_dim(index, dim)


@operation
def _sort(rng: random.Random, x: Tensor) -> Function:
    dim, down, way = axis_of(rng, x), rng.random() < 0.5, rng.randrange(4)
    many = rng.randint(0, x.shape[dim])
    if way == 0:
        return lambda x: tuple(x.sort(dim, down))
    if way == 1:
        return lambda x: tuple(x.topk(many, dim))
    if way == 2:
        return lambda x: x.take_along_dim(x.argsort(dim), dim)
    return lambda x: x.sort(dim=dim, descending=down).values


@operation
def _sort_rows_and_back(rng: random.Random, x: Tensor) -> Function:
    there = rng.random() < 0.5

    def function(x: Tensor) -> Tensor:
        order = (x.flatten(1) @ constants(x[0].numel())).argsort() if len(x) else x.flatten().argsort()  # sums may tie
        return x[order] if there else (x[order] * 2)[order.argsort()]

    return function


@operation
def _nonzero(rng: random.Random, x: Tensor) -> Function:
    middle = float(x.detach().median()) * 1.01 if x.numel() else 0.0
    if rng.random() < 0.5:
        return lambda x: x[(x > middle).nonzero(as_tuple=True)]
    return lambda x: x[(x > middle).nonzero()[:, 0]]


@operation
def _repeat_interleave(rng: random.Random, x: Tensor) -> Function:
    dim = axis_of(rng, x)
    each = torch.tensor([rng.randrange(3) for _ in range(x.shape[dim])], dtype=torch.int64)
    times = each if rng.random() < 0.5 else rng.randint(1, 3)
    if x.dim() == 1 and isinstance(times, int) and rng.random() < 0.5:
        return lambda x: x.repeat_interleave(times)
    return lambda x: x.repeat_interleave(times, dim)


@operation
def _repeat(rng: random.Random, x: Tensor) -> Function:
    times = [rng.randint(1, 2) for _ in range(x.dim() + rng.randrange(2))]
    return (lambda x: x.repeat(times)) if rng.random() < 0.6 else lambda x: x.tile(times)


@operation
def _expand(rng: random.Random, x: Tensor) -> Function:
    many = rng.randint(1, 3)
    if rng.random() < 0.5:
        return lambda x: x.expand(many, *x.shape)
    return lambda x: x.unsqueeze(0).expand(many, *x.shape)


@operation
def _pieces(rng: random.Random, x: Tensor) -> Function:
    dim, way = axis_of(rng, x), rng.randrange(4)
    many = rng.randint(1, 3)
    if way == 0:
        return lambda x: x.split(many, dim)
    if way == 1:
        return lambda x: x.chunk(many, dim)
    if way == 2:
        return lambda x: x.tensor_split(many, dim)
    return lambda x: x.unbind(dim) if x.shape[dim] else x * 1


@operation
def _pieces_joined(rng: random.Random, x: Tensor) -> Function:
    dim, turn = axis_of(rng, x), rng.randrange(3)
    stacks = rng.random() < 0.5

    def function(x: Tensor) -> Tensor:
        parts = list(x.unbind(dim) if stacks and x.shape[dim] else x.split(2, dim))
        parts = parts[turn:] + parts[:turn]
        return torch.stack(parts, dim) if stacks and x.shape[dim] else torch.cat(parts, dim)

    return function


@operation
def _joined(rng: random.Random, x: Tensor) -> Function:
    dim, way = axis_of(rng, x), rng.randrange(6)
    if way == 0:
        return lambda x: torch.cat([x, x * 2], dim)
    if way == 1:
        return lambda x: torch.stack([x, x * 2], dim)
    if way == 2:
        return lambda x: torch.cat([torch.zeros_like(x), x], dim)
    if way == 3:
        return lambda x: torch.cat([torch.zeros(x.shape, dtype=x.dtype), x], dim)
    if way == 4:
        return lambda x: torch.hstack([x, x * 2])
    return lambda x: torch.vstack([x, x * 2])


@operation
def _turned(rng: random.Random, x: Tensor) -> Function:
    dim, by, way = axis_of(rng, x), rng.randint(-2, 2), rng.randrange(3)
    if way == 0:
        return lambda x: x.flip(dim)
    if way == 1:
        return lambda x: x.roll(by, dim)
    return lambda x: x.roll(by)


@operation
def _reduced(rng: random.Random, x: Tensor) -> Function:
    dim, keeps = axis_of(rng, x), rng.random() < 0.5
    name = rng.choice(["sum", "mean", "logsumexp", "prod"])
    if not x.shape[dim] or x.dim() < 2:
        return lambda x: x * 1
    return lambda x: getattr(x, name)(dim, keepdim=keeps)


@operation
def _cumulated(rng: random.Random, x: Tensor) -> Function:
    dim = axis_of(rng, x)
    return lambda x: x.cumsum(dim)


@operation
def _elementwise(rng: random.Random, x: Tensor) -> Function:
    way = rng.randrange(5)
    if way == 0:
        return lambda x: x + x.flip(0)
    if way == 1:
        return lambda x: torch.where(x > 1, x, x * 2)
    if way == 2:
        return lambda x: x.masked_fill(x > 1.5, 0.0)
    if way == 3:
        return lambda x: x.unsqueeze(0) * x.unsqueeze(1) if x.dim() == 1 else x * x[:, :1]
    return lambda x: x * torch.ones_like(x) + x.new_ones(x.shape)


@operation
def _written_to_constants(rng: random.Random, x: Tensor) -> Function:
    rows, way = len(x), rng.randrange(6)
    many = rows + rng.randrange(3)
    where = order_of(rng, many)[:rows]
    if rng.random() < 0.3 and rows:
        where = places(rng, many, rows)
    wide = where.view(-1, *[1] * (x.dim() - 1)).expand(x.shape)
    plain = rng.random() < 0.5

    def function(x: Tensor) -> Tensor:
        shape = (many, *x.shape[1:])
        out = torch.zeros(shape, dtype=x.dtype) if plain else x.new_zeros(shape)
        if way == 0:
            out[where] = x
        elif way == 1:
            out.index_put_((where,), x)
        elif way == 2:
            out.index_add_(0, where, x)
        elif way == 3:
            return out.index_copy(0, where, x)
        elif way == 4:
            return out.scatter(0, wide, x)
        else:
            return out.scatter_add(0, wide, x)
        return out

    return function


@operation
def _written_by_mask(rng: random.Random, x: Tensor) -> Function:
    """Rows go into constants by a mask, as unpadded tokens do."""
    many = len(x) + rng.randint(0, 3)
    mask = torch.zeros(many, dtype=torch.bool)
    mask[order_of(rng, many)[: len(x)]] = True

    def function(x: Tensor) -> Tensor:
        out = x.new_zeros(many, *x.shape[1:])
        out[mask] = x
        return out

    return function


@operation
def _written_to_samples(rng: random.Random, x: Tensor) -> Function:
    where = places(rng, len(x), rng.randint(1, 3)) if len(x) else torch.zeros(0, dtype=torch.int64)
    source = where if rng.random() < 0.6 or not len(x) else places(rng, len(x), len(where))
    mask, way = mask_of(rng, len(x)), rng.randrange(8)

    def function(x: Tensor) -> Tensor:
        y = x * 1
        if way == 0:
            y[where] = x[source] * 2
        elif way == 1:
            y[mask] = x[mask] * 2
        elif way == 2:
            y[mask] = 0.0
        elif way == 3:
            y.index_add_(0, where, x[source])
        elif way == 4:
            return y.index_copy(0, where, x[source])
        elif way == 5:
            y[:1] = x[-1:]
        elif way == 6:
            y.index_fill_(0, where, 0.0)
        else:
            y[mask] += x[mask]
        return y

    return function


@operation
def _written_through_views(rng: random.Random, x: Tensor) -> Function:
    where = places(rng, len(x), 2) if len(x) else torch.zeros(0, dtype=torch.int64)
    source = where if rng.random() < 0.5 or not len(x) else places(rng, len(x), 2)
    dim, way = axis_of(rng, x), rng.randrange(5)

    def function(x: Tensor) -> Tensor:
        y = x.contiguous() * 1
        if not x.numel():
            return y
        if way == 0:
            y.view(len(y), -1)[where] = x.reshape(len(x), -1)[source]
        elif way == 1:
            y.select(dim, 0).copy_(x.select(dim, x.shape[dim] - 1))
        elif way == 2:
            y.narrow(dim, 0, 1).add_(x.narrow(dim, x.shape[dim] - 1, 1))
        elif way == 3:
            y[:1].mul_(x[-1:])
        else:
            y.flip(0).zero_()
        return y

    return function


@operation
def _packed(rng: random.Random, x: Tensor) -> Function:
    if x.dim() < 2 or not x.numel():
        return lambda x: x * 1
    first = rng.random() < 0.5
    samples, length = (x.shape[0], x.shape[1]) if first else (x.shape[1], x.shape[0])
    lengths = torch.tensor([rng.randint(1, length) for _ in range(samples)])
    back = rng.random() < 0.5

    def function(x: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=first, enforce_sorted=False)
        return pad_packed_sequence(packed, batch_first=first)[0] if back else packed.data

    return function


@operation
def _given_up(rng: random.Random, x: Tensor) -> Function:
    """Operations after which nothing need be known; but nothing wrong may be said."""
    way = rng.randrange(4)
    if way == 0:
        return lambda x: x.take(torch.arange(x.numel()).flip(0))
    if way == 1:
        return lambda x: x.unfold(0, 1, 1) if len(x) else x * 1
    if way == 2:
        return lambda x: x.rot90(1, (0, 1)) if x.dim() > 1 else x.flip(0)
    return lambda x: x.masked_scatter(x > 1.5, x.flip(0))


def constants(*shape: int) -> Tensor:
    """The same numbers at every call."""
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.5


@operation
def _einsum(rng: random.Random, x: Tensor) -> Function:
    """Axes in another order, one of them perhaps contracted with a matrix that has as many rows as some axis."""
    letters = list("abcdefgh"[: x.dim()])
    out = rng.sample(letters, len(letters))
    if rng.random() < 0.5:
        return lambda x: torch.einsum(f"{''.join(letters)}->{''.join(out)}", x)
    gone = rng.randrange(x.dim())
    weight = constants(rng.choice([*x.shape, 2]), x.shape[gone])
    out[out.index(letters[gone])] = "z"
    return lambda x: torch.einsum(f"z{letters[gone]},{''.join(letters)}->{''.join(out)}", weight, x)


@operation
def _product(rng: random.Random, x: Tensor) -> Function:
    """A matrix product with constants, which may bring axes of their own, as long as another."""
    lead = [rng.choice([*x.shape, 2]) for _ in range(rng.randrange(2))]
    wide, way = rng.choice([*x.shape, 3]), rng.randrange(5)
    if way == 0 or x.dim() < 2:
        weight = constants(*x.shape[:-1][-len(lead) :], x.shape[-1], wide)
        return lambda x: x.unsqueeze(-2) @ weight
    if way == 1:
        weight = constants(*lead, *x.shape[:-2], x.shape[-1], wide)
        return lambda x: torch.matmul(x, weight)
    if way == 2:
        weight = constants(*lead, *[1] * (x.dim() - 2), wide, x.shape[-2])
        return lambda x: weight @ x
    if way == 3:
        vector = constants(x.shape[-1])
        return lambda x: x @ vector
    return lambda x: torch.tensordot(constants(wide, x.shape[1]), x, dims=([1], [1]))


@operation
def _against_a_table(rng: random.Random, x: Tensor) -> Function:
    """With constants that bring an axis in front, as long as another."""
    table, way = constants(rng.choice([*x.shape, 2]), *x.shape), rng.randrange(6)
    if way == 0:
        return lambda x: torch.fmax(x, table)
    if way == 1:
        return lambda x: torch.clip(x, max=table)
    if way == 2:
        return lambda x: torch.broadcast_tensors(x, table)[0]
    if way == 3:
        return lambda x: torch.max(x, table)
    if way == 4:
        return lambda x: torch.float_power(x.abs() + 1, table)
    return lambda x: torch.cdist(table, x.unsqueeze(0)) if x.dim() > 1 else torch.fmin(table, x)


@operation
def _diagonal(rng: random.Random, x: Tensor) -> Function:
    if x.dim() < 2:
        return lambda x: torch.diag_embed(x)
    first, second = rng.sample(range(x.dim()), 2)
    return lambda x: x.diagonal(dim1=first, dim2=second)


@operation
def _layer(rng: random.Random, x: Tensor) -> Function:
    """A layer that works on the last axes, of as many channels as some axis has."""
    out, deep = rng.choice([*x.shape, 2]), x.dim()
    known: list[Function] = [
        lambda x: functional.linear(x, constants(out, x.shape[-1])),
        lambda x: functional.layer_norm(x, x.shape[1:]),
        lambda x: functional.layer_norm(x, x.shape[-1:]),
        lambda x: functional.rms_norm(x, x.shape[-1:]),
        lambda x: functional.pad(x, (0, 0, 1, 0) if deep > 1 and out % 2 else (1, 0)),
        lambda x: torch.fft.rfft(x, dim=-1).abs(),
        lambda x: torch.tril(x) if deep > 1 else x * 2,
    ]
    if deep > 1:
        known += [
            lambda x: functional.group_norm(x, 1),
            lambda x: functional.batch_norm(x, constants(x.shape[1]), constants(x.shape[1])),
            lambda x: functional.prelu(x - 1, constants(x.shape[1])),
        ]
    if deep in (2, 3):
        known += [
            lambda x: functional.conv1d(x, constants(out, x.shape[-2], 1)),
            lambda x: functional.avg_pool1d(x, 1),
            lambda x: functional.max_pool1d(x, x.shape[-1]),
        ]
    if deep in (3, 4):
        known += [
            lambda x: functional.conv2d(x, constants(out, x.shape[-3], 1, 1)),
            lambda x: functional.adaptive_avg_pool2d(x, 1),
            lambda x: functional.conv_transpose2d(x, constants(x.shape[-3], out, 2, 2)),
            lambda x: functional.interpolate(x, scale_factor=2),
        ]
    return rng.choice(known)


@operation
def _along(rng: random.Random, x: Tensor) -> Function:
    """What mixes one axis only, with its arguments by place and by name."""
    dim = axis_of(rng, x)
    return rng.choice(
        [
            lambda x: x.softmax(dim),
            lambda x: functional.log_softmax(x, dim=dim),
            lambda x: functional.normalize(x, dim=dim),
            lambda x: x.cumsum(dim),
            lambda x: x.diff(1, dim),
            lambda x: x.diff(dim=dim),
            lambda x: torch.diff(x),
            lambda x: torch.fft.fft(x, None, dim).real,
            lambda x: torch.fft.fftshift(x, dim),
            lambda x: x.unfold(dim, min(2, x.shape[dim]), 1),
            lambda x: x.cummax(dim)[0],
        ]
    )


@operation
def _reduced_in_other_words(rng: random.Random, x: Tensor) -> Function:
    dim, keeps = axis_of(rng, x), rng.random() < 0.5
    if x.dim() < 2:
        return lambda x: x * 1
    return rng.choice(
        [
            lambda x: x.std(dim, False, keeps),
            lambda x: x.var(dim, False),
            lambda x: torch.var_mean(x, dim, correction=0)[1],
            lambda x: x.norm(2, dim, keeps),
            lambda x: x.norm(dim=dim),
            lambda x: torch.linalg.vector_norm(x, 2, dim),
            lambda x: torch.linalg.vector_norm(x, dim=dim, keepdim=keeps),
            lambda x: x.kthvalue(1, dim, keeps)[0],
            lambda x: x.kthvalue(k=1, dim=dim)[0],
            lambda x: x.mode()[0],
            lambda x: x.quantile(0.5, dim),
            lambda x: x.max(dim, keeps)[0],
            lambda x: torch.amin(x, dim),
            lambda x: x.sum((dim, (dim + 1) % x.dim())),
            lambda x: x.mean(axis=dim),
            lambda x: functional.cosine_similarity(x, constants(*x.shape[1:]), dim=dim),
            lambda x: functional.cosine_similarity(constants(x.shape[0], *x.shape), x, dim=dim),
        ]
    )


@operation
def _attention(rng: random.Random, x: Tensor) -> Function:
    if x.dim() < 2:
        return lambda x: x * 2
    asked = constants(*rng.choice([[], [rng.choice([*x.shape, 2])]]), *[1] * (x.dim() - 2), 2, x.shape[-1])
    if rng.random() < 0.4:
        return lambda x: functional.scaled_dot_product_attention(x, x, x)
    return lambda x: functional.scaled_dot_product_attention(asked, x, x)


@operation
def _recurrent(rng: random.Random, x: Tensor) -> Function:
    if x.dim() != 3 or not x.numel():
        return lambda x: x * 2
    layers, first = rng.choice([*x.shape, 2]), rng.random() < 0.5
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        gru = torch.nn.GRU(x.shape[-1], 2, layers, batch_first=first, bidirectional=rng.random() < 0.3).double()
    gru.requires_grad_(False)
    return lambda x: gru(x)[0] if layers % 2 else gru(x)[1]


@operation
def _scattered(rng: random.Random, x: Tensor) -> Function:
    """Along any axis, by an index that may be shorter than what it takes from and goes to."""
    dim, way = axis_of(rng, x), rng.randrange(7)
    if not x.numel():
        return lambda x: x * 1
    shape = [rng.randint(1, size) for size in x.shape] if rng.random() < 0.5 else list(x.shape)
    index = torch.tensor(rng.choices(range(x.shape[dim]), k=math.prod(shape))).view(shape)
    line = index.flatten()[: x.shape[dim]]
    longer = [size + rng.randrange(3) for size in x.shape]
    return [
        lambda x: x.gather(dim, index),
        lambda x: x.new_zeros(longer).scatter(dim, index, x),
        lambda x: x.new_zeros(longer).scatter_add(dim, index, x),
        lambda x: x.scatter(dim, index, 0.5),
        lambda x: x.new_zeros(x.shape).index_add(dim, line, x.narrow(dim, 0, len(line))),
        lambda x: x.new_zeros(x.shape).scatter(dim, x.argsort(dim), 1.0) * x,
        lambda x: x.new_zeros(x.shape).scatter(dim, x.argsort(dim).narrow(dim, 0, 1), x),
    ][way]


@operation
def _written_by_slices(rng: random.Random, x: Tensor) -> Function:
    """Into constants or samples, at numbers and slices; perhaps one entry after another."""
    long, place = rng.choice([*x.shape, 2]), rng.randint(0, x.dim())
    way, dim = rng.randrange(5), axis_of(rng, x)

    def function(x: Tensor) -> Tensor:
        out = x.new_zeros(*x.shape[:place], long, *x.shape[place:])
        if not x.numel() or not long:
            return out
        head = (slice(None),) * place
        if way == 0:
            for k in range(long):
                out[(*head, k)] = x * (k + 1)
        elif way == 1:
            out[(*head, 0)] = x
        elif way == 2:
            out[(*head, slice(0, 1))] = x.unsqueeze(place)
        elif way == 3:
            out[..., 0] = (
                x.select(dim, 0)[(..., None)] if x.dim() > 1 and place == x.dim() and dim == place - 1 else 1.0
            )
            out[(*head, long - 1)] = x.flip(0)
        else:
            out = torch.zeros_like(x)
            for k in range(len(x)):
                out[k] = x[k] * 2
            out[:, None] = out.clone()[:, None]
        return out

    return function


@operation
def _looked_up(rng: random.Random, x: Tensor) -> Function:
    """Constants at numbers that are of samples."""
    wide, way = rng.choice([*x.shape, 2]), rng.randrange(4)

    def function(x: Tensor) -> Tensor:
        index = (x > 1).long()
        table = constants(2, wide)
        looked = [
            lambda: table[index],
            lambda: constants(wide, 2)[:, index],
            lambda: functional.embedding(index, table),
            lambda: constants(2)[index],
        ][way]()
        widened = x[(..., None)] if way in (0, 2) else x
        return looked * widened

    return function
