"""What shows in later batches only: the first two samples take another way, have no padding, or come in order.

The first batch is of two samples whose first number is negative, or that are complete; what is measured wrongly later
must not be believed because it was right there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from problems.problem import Problem, module
from problems.uses import Part, Uses

out = partial(nn.Linear, 4, 3)
square = partial(nn.Linear, 3, 3)


def late(name: str, function: Callable[[Any, Any], Any], batches: Callable[[], list[Tensor]], **parts: Part) -> Problem:
    """`function(module, x)` on several batches."""
    return module(name, "late", lambda: Uses(function, **parts), batches)


def gated(*shape: int) -> Callable[[], list[Tensor]]:
    """Batches of 2, 4 and 8 samples `[N, *shape]`; those of the first begin with a number below 0, others above."""

    def make() -> list[Tensor]:
        found = [torch.randn(n, *shape) for n in (2, 4, 8)]
        for number, x in enumerate(found):
            first = x.flatten(1)[:, 0]
            first.copy_(first.abs() * (1 if number else -1))
        return found

    return make


def gate(x: Tensor) -> Tensor:
    """1 where a sample begins with a number above 0, `[N, 1]`."""
    return (x.flatten(1)[:, :1] > 0).to(x.dtype)


def masked(*masks: list[list[int]]) -> Callable[[], list[Tensor]]:
    """Batches `[N, T, 3]` whose positions count where their first number is above 0, as the masks say."""

    def make() -> list[Tensor]:
        found = []
        for rows in masks:
            mask = torch.tensor(rows)
            x = torch.randn(*mask.shape, 3)
            x[..., 0] = x[..., 0].abs() * (2 * mask - 1)
            found.append(x)
        return found

    return make


def numbered(*rows: list[list[int]]) -> Callable[[], list[Tensor]]:
    """Batches `[N, T, 3]` whose first numbers are ids."""

    def make() -> list[Tensor]:
        found = [torch.randn(len(each), len(each[0]), 3) for each in rows]
        for x, each in zip(found, rows, strict=True):
            x[..., 0] = torch.tensor(each).to(x.dtype)
        return found

    return make


def count(x: Tensor) -> Tensor:
    """0, 1, 2, … for every position, made of ones in the dtype and on the device of x."""
    return x.new_ones(x.shape[1]).cumsum(0) - 1


def its_own_bias(m: Any, x: Tensor) -> Tensor:
    """A matrix that is shared, with a bias that a network makes for every sample."""
    own = [functional.linear(x[n : n + 1], m.w, bias) for n, bias in enumerate(m.bias_of(x))]
    return m.out(x) + gate(x) * torch.cat(own)


def looked_up_by_list(m: Any, x: Tensor) -> Tensor:
    """Ids that have been Python numbers: no tensor tells whose they are."""
    return (m.table(torch.tensor(x[..., 0].long().tolist())) * x).tanh().sum(1)


def padded_in_place(m: Any, x: Tensor) -> Tensor:
    filled = torch.zeros_like(x)
    for n, length in enumerate((x[..., 0] > 0).sum(1).tolist()):
        filled[n, length:] = m.pad
    return (x + filled).tanh().sum(1)


def stepped(m: Any, x: Tensor) -> Tensor:
    """A cell on the positions that count, from its own zero state."""
    mask = x[..., 0] > 0
    return m.lin(x).sum(1) + x.new_zeros(len(x), 3).index_add(0, mask.nonzero()[:, 0], m.cell(x[mask]))


def changed_weight(m: Any, x: Tensor) -> Tensor:
    """A weight that gets an addition in place, for long inputs."""
    w = m.w.clone()
    if x.shape[1] > 4:
        w += m.more
    return functional.linear(x, w).tanh().sum(1)


def binned(m: Any, x: Tensor) -> Tensor:
    edges = torch.linspace(-1, 1, 7, dtype=x.dtype)
    place = torch.searchsorted(edges, x.t().contiguous(), sorter=torch.arange(7))
    return m.out(x) + gate(x) * m.table(place).tanh().sum(0)


def joined_to_nothing(m: Any, x: Tensor) -> Tensor:
    twice = torch.cat([x.new_empty(0).clone(), x.t(), x.t().flip(0)], -1)
    return m.out(x) + gate(x) * m.lin(twice[..., None]).tanh().sum(0).view(2, len(x), 3).sum(0)


def expert_without_rows(m: Any, x: Tensor) -> Tensor:
    """Tokens that count go through a norm; in some batches there is none."""
    mask = x[..., 0] > 0
    return m.lin(x).sum(1) + x.new_zeros(len(x), 3).index_add(0, mask.nonzero()[:, 0], m.norm(x[mask]))


def twice(m: Any, x: Tensor) -> Tensor:
    """Two views of every sample in one batch, with a token that is expanded to all of them."""
    views = torch.cat([x, x * 2])
    views = torch.cat([m.token.expand(len(views), -1, -1), views], 1)
    one, two = m.lin(views).tanh().sum(1).chunk(2)
    return one - two


def conv_twice(m: Any, x: Tensor) -> Tensor:
    one, two = m.norm(m.conv(torch.cat([x, x * 2]))).tanh().sum(2).chunk(2)
    return one * two


def detached(m: Any, x: Tensor) -> Tensor:
    """What is written through `.data` is written."""
    held = x.new_zeros(x.shape[1], len(x))
    held.data.copy_(x.t())
    return m.out(x) + gate(x) * m.lin(held[..., None]).tanh().sum(0)


def own_matrix(m: Any, x: Tensor) -> Tensor:
    """Every sample takes one of two matrices; they are computed in an order that the samples give."""
    order = x[:, 0].argsort()
    h = x[order]
    chosen = torch.stack([m.bank[number] for number in (h[:, 1] > 0).long().tolist()])
    return torch.bmm(h[:, None], chosen)[:, 0].tanh()[order.argsort()]


def slots(m: Any, x: Tensor) -> Tensor:
    """Samples go to one of two slots each, and the other stays empty: slots of one kind stand together."""
    if x.shape[1] == 4:
        return m.out(x).tanh()
    kind, x = (x[:, 4] > 0).long(), x[:, :4]
    filled = x.new_zeros(2 * len(x), 4).index_add(0, kind * len(x) + torch.arange(len(x)), x)
    return m.out(filled).tanh().view(2, len(x), -1).sum(0)


def shifted_over_padding(m: Any, x: Tensor) -> Tensor:
    """Every token sees the one before it; between two samples stands one of padding, which is the next one's first."""
    if x.shape[1] == 4:
        return m.lin(x).tanh().sum(1)
    h = m.lin(functional.pad(x, (0, 0, 0, 1)).flatten(0, 1)).tanh()
    return (h + h.roll(1, 0)).view(len(x), -1, 3)[:, :-1].sum(1)


def with_slots() -> list[Tensor]:
    x = torch.randn(2, 5)
    x[:, 4] = torch.tensor([-1.0, 1.0])
    return [torch.randn(2, 4), x, torch.randn(5, 5)]


def gradient_inside(m: Any, x: Tensor) -> Tensor:
    """Long inputs add the slope of a layer, as energy models do."""
    h = m.lin(x).tanh()
    y = m.out(h).sum(1)
    if x.shape[1] < 5:
        return y
    with torch.enable_grad():
        z = h.clone() if h.requires_grad else h.clone().requires_grad_()
        (slope,) = torch.autograd.grad(m.out(z).tanh().sum(), z, create_graph=True)
    return y + slope.sum(1)


def joined_to_a_memory(m: Any, x: Tensor) -> Tensor:
    """A memory of four rows in front of the samples, of which there are four."""
    h = m.lin(x).sum(1)
    if x.shape[1] < 5:
        return h
    together = torch.cat([m.memory, h], 0)
    return (together[4:] + 0.1 * together[:4].mean(0)).tanh()


def activated_weight(m: Any, x: Tensor) -> Tensor:
    w = m.w.clone()
    y = functional.linear(x, w).tanh().sum(1)
    if x.shape[1] > 4:
        functional.elu(w, inplace=True)
        y = y + functional.linear(x, w).tanh().sum(1)
    return y


def first_events(m: Any, x: Tensor) -> Tensor:
    """The time at which each sample is largest, by indices of a mask that has the positions first."""
    mask = functional.one_hot(x[..., 0].argmax(1), x.shape[1]).bool()
    time, sample = torch.where(mask.t())
    h = (m.table(time) + x.transpose(0, 1)[time, sample]).tanh()
    return x.new_zeros(len(x), 3).index_add(0, sample, h) + m.table((x[:, 0, 1] > 0).long())


def events(*times: list[int]) -> Callable[[], list[Tensor]]:
    """Batches `[N, 4, 3]` whose first number is largest at these times."""

    def make() -> list[Tensor]:
        found = [torch.randn(len(each), 4, 3) for each in times]
        for x, each in zip(found, times, strict=True):
            x[..., 0] = -1
            x[range(len(each)), each, 0] = 2
        return found

    return make


def squeezed(m: Any, x: Tensor) -> Tensor:
    h = m.lin(x.mean(1))[None]
    h = h.clone().squeeze_(0) if x.shape[1] > 4 else h.squeeze(0)
    return (h + m.shift).tanh()


RAGGED = masked([[1, 1, 1], [1, 1, 1]], [[1, 1, 1], [1, 0, 0], [1, 1, 0]], [[1, 1, 1], [1, 0, 0]])
LATE = [
    late("a bias that the sample makes", its_own_bias, gated(4), out=out, bias_of=out, w=(3, 4)),
    late(
        "ids from a list",
        looked_up_by_list,
        numbered([[0, 1, 2, 3], [3, 2, 1, 0]], [[0, 1, 2, 3], [1, 1, 1, 2], [2, 2, 3, 3]]),
        table=partial(nn.Embedding, 4, 3),
    ),
    late(
        "positions made of ones",
        lambda m, x: m.out(x[..., 0]) + gate(x) * (x * m.place(count(x)[:, None]).tanh()).sum(1),
        gated(4, 3),
        out=out,
        place=partial(nn.Linear, 1, 3),
    ),
    late(
        "numbered positions, for long inputs",
        lambda m, x: m.lin(x * m.place(count(x).long()) if x.shape[1] > 4 else x).tanh().sum(1),
        lambda: [torch.randn(2, 4, 3), torch.randn(3, 6, 3)],
        lin=square,
        place=partial(nn.Embedding, 9, 3),
    ),
    late("padding in place", padded_in_place, RAGGED, pad=(3,)),
    late("a cell on ragged rows", stepped, RAGGED, lin=square, cell=partial(nn.GRUCell, 3, 3)),
    late(
        "a weight that is changed in place",
        changed_weight,
        lambda: [torch.randn(2, 4, 8), torch.randn(3, 6, 8)],
        w=(3, 8),
        more=(3, 8),
    ),
    late("bins by searchsorted with a sorter", binned, gated(4), out=out, table=partial(nn.Embedding, 8, 3)),
    late("joined to an empty tensor", joined_to_nothing, gated(4), out=out, lin=partial(nn.Linear, 1, 3)),
    late(
        "an expert without rows",
        expert_without_rows,
        masked([[1, 1], [1, 0]], [[0, 0], [0, 0], [0, 0]], [[0, 0], [1, 1]]),
        lin=square,
        norm=partial(nn.LayerNorm, 3),
    ),
    late("two views of a sample", twice, gated(4, 3), lin=square, token=(1, 1, 3)),
    late(
        "two views through a convolution",
        conv_twice,
        gated(2, 5),
        conv=partial(nn.Conv1d, 2, 3, 2),
        norm=partial(nn.GroupNorm, 1, 3),
    ),
    late(
        "a matrix for every sample, sorted", own_matrix, lambda: [torch.randn(n, 4) for n in (2, 6, 8)], bank=(2, 4, 3)
    ),
    late(
        "shifted over the padding between samples",
        shifted_over_padding,
        lambda: [torch.randn(2, 4, 3), torch.randn(3, 6, 3)],
        lin=square,
    ),
    late("slots that are partly filled", slots, with_slots, out=partial(nn.Linear, 4, 9)),
    late(
        "a gradient inside",
        gradient_inside,
        lambda: [torch.randn(2, 4, 3), torch.randn(3, 6, 3)],
        lin=square,
        out=square,
    ),
    late(
        "joined to a memory",
        joined_to_a_memory,
        lambda: [torch.randn(2, 4, 8), torch.randn(4, 6, 8)],
        lin=partial(nn.Linear, 8, 3),
        memory=(4, 3),
    ),
    late(
        "an activation in place on a weight",
        activated_weight,
        lambda: [torch.randn(2, 4, 8), torch.randn(3, 6, 8)],
        w=(3, 8),
    ),
    late(
        "positions of one row, scaled by frequency",
        lambda m, x: (m.table(torch.arange(x.shape[1]).clamp(max=3)) * x).tanh().sum(1),
        lambda: [torch.randn(2, 4, 3), torch.randn(3, 6, 3)],
        table=partial(nn.Embedding, 4, 3, scale_grad_by_freq=True),
    ),
    late(
        "indices by torch.where", first_events, events([0, 2], [3, 1, 0, 2], [1, 0]), table=partial(nn.Embedding, 4, 3)
    ),
    late(
        "squeezed in place",
        squeezed,
        lambda: [torch.randn(2, 4, 3), torch.randn(4, 6, 3), torch.randn(3, 5, 3)],
        lin=partial(nn.Linear, 3, 6),
        shift=(6,),
    ),
    late("written through .data", detached, gated(4), out=out, lin=partial(nn.Linear, 1, 3)),
    late(
        "axes by name, and as NumPy's integers",
        lambda m, x: m.lin(torch.transpose(x, dim0=1, dim1=2).permute(dims=(0, 2, 1))).tanh().sum(np.int64(1)),
        gated(4, 3),
        lin=square,
    ),
]
