"""Networks that take their samples' rows apart and put them together: exact, and which of them on the fast path.

And faults of structure, planted: each is seen by what is tested here, with the proof of every batch switched off.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import forgetless
from exactness import unchanged, worst
from forgetless.measure.engine import provenance, tape
from forgetless.measure.engine.provenance import Rows, routing, shapes

follow = importlib.import_module("forgetless.measure.engine.provenance.follow")
rows_module = importlib.import_module("forgetless.measure.engine.provenance.rows")
Patch = pytest.MonkeyPatch
W = 4


class Net(nn.Module):
    """`function(module, x, mask)` with what a small network may need."""

    def __init__(self, function: Callable[[Any, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.lin, self.other, self.qkv = nn.Linear(W, W), nn.Linear(W, W), nn.Linear(W, 3 * W)
        self.norm, self.table = nn.LayerNorm(W), nn.Embedding(6, W)
        self.gate, self.experts = nn.Linear(W, 3), nn.ModuleList(nn.Linear(W, W) for _ in range(3))
        self.token, self.gru = nn.Parameter(torch.randn(W)), nn.GRU(W, W, batch_first=True)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`[N, …]`."""
        return self.function(self, x, mask)


def unpadded(m: Any, x: Tensor, mask: Tensor) -> Tensor:
    """Tokens without padding, padded for attention alone, as ModernBERT's."""
    where = mask.flatten().nonzero().flatten()
    n, t = mask.shape
    h = x.flatten(0, 1)[where]
    q = m.qkv(m.norm(h))
    wide = q.new_zeros(n * t, 3 * W)
    wide[where] = q
    a, b, c = wide.view(n, t, 3 * W).chunk(3, -1)
    scores = (a @ b.transpose(1, 2)).masked_fill(~mask[:, None], -1e9).softmax(-1)
    h = h + m.lin((scores @ c).flatten(0, 1).index_select(0, where))
    h = h + m.other(m.norm(h)).tanh()
    out = h.new_zeros(n * t, W).index_copy(0, where, h).view(n, t, W)
    return out.sum(1) / mask.sum(1, keepdim=True)


def packed(m: Any, x: Tensor, mask: Tensor) -> Tensor:
    p = pack_padded_sequence(x, mask.sum(1), batch_first=True, enforce_sorted=False)
    p = PackedSequence(m.lin(p.data).tanh(), p.batch_sizes, p.sorted_indices, p.unsorted_indices)
    return pad_packed_sequence(p, batch_first=True, total_length=x.shape[1])[0]


def packed_recurrent(m: Any, x: Tensor, mask: Tensor) -> Tensor:
    p = pack_padded_sequence(m.lin(x), mask.sum(1), batch_first=True, enforce_sorted=False)
    return m.other(pad_packed_sequence(m.gru(p)[0], batch_first=True, total_length=x.shape[1])[0])


def experts(m: Any, x: Tensor, mask: Tensor) -> Tensor:
    tokens = x[mask]
    weights, chosen = m.gate(tokens).softmax(-1).topk(2, -1)
    mixed = torch.zeros_like(tokens)
    for k, expert in enumerate(m.experts):
        rows, slots = (chosen == k).nonzero(as_tuple=True)
        mixed.index_add_(0, rows, expert(tokens[rows]).tanh() * weights[rows, slots, None])
    out = torch.zeros_like(x)
    out[mask] = m.lin(mixed)
    return out


def dispatched(m: Any, x: Tensor, mask: Tensor) -> Tensor:
    tokens = x.reshape(-1, W)
    chosen = m.gate(tokens).argmax(-1)
    order = chosen.argsort(stable=True)
    pieces = tokens[order].split(torch.bincount(chosen, minlength=3).tolist())
    joined = torch.cat([expert(piece) for expert, piece in zip(m.experts, pieces, strict=True)])
    return (joined[order.argsort()] * m.gate(tokens).amax(-1, keepdim=True)).view_as(x)


def sorted_by_length(m: Any, x: Tensor, mask: Tensor) -> Tensor:
    order = mask.sum(1).argsort(stable=True)
    return m.other(m.lin(x[order].transpose(0, 1)).tanh().transpose(0, 1)[order.argsort()])


def deduplicated(m: Any, x: Tensor, mask: Tensor) -> Tensor:
    ids = (x[..., 0].abs() * 2).long().clamp(max=5)
    found, back = ids.unique(return_inverse=True)
    return m.other(m.lin(m.table(found)).tanh()[back] + x)


def graph(m: Any, x: Tensor, mask: Tensor) -> Tensor:
    """Nodes in one list, whose neighbors are the next node of the same graph, and the sums of every graph."""
    nodes, owner = x[mask], mask.nonzero()[:, 0]
    sent = m.lin(nodes)
    same = owner[1:] == owner[:-1]
    ends = same.nonzero().flatten()
    got = torch.zeros_like(sent).index_add_(0, ends + 1, sent[ends])
    nodes = m.other(got + nodes).tanh()
    return nodes.new_zeros(len(x), W).index_add_(0, owner, nodes)


def masked_token(m: Any, x: Tensor, mask: Tensor) -> Tensor:
    y = x * 1
    y[~mask] = m.token
    return m.lin(y)


def where_token(m: Any, x: Tensor, mask: Tensor) -> Tensor:
    return m.lin(torch.where(mask[..., None], x, m.token))


def out_given(m: Any, x: Tensor, mask: Tensor) -> Tensor:
    with torch.no_grad():
        room = torch.empty_like(x)
        torch.mul(x, 2.0, out=room)
    return m.lin(room) * m.token


def parameter_written_by_out(m: Any, x: Tensor, mask: Tensor) -> Tensor:
    """A gradient does not go through `out=`, so torch itself takes no parameter there."""
    with torch.no_grad():
        room = torch.empty_like(x)
        torch.mul(x, m.token, out=room)
    return m.lin(room)


def through_views(m: Any, x: Tensor, mask: Tensor) -> Tensor:
    y = (x * 1).contiguous()
    y.view(-1, W)[mask.flatten()] = m.lin(x[mask])
    y.select(1, 0).add_(m.other(x[:, -1]))
    return m.lin(y).tanh()


def rows_swapped_through_a_view(m: Any, x: Tensor, mask: Tensor) -> Tensor:
    """A view is made, then its base gets the samples in another order, and is put right only after the layer."""
    y = (x * 1).contiguous()
    view = y.view(len(x), -1)
    order = torch.arange(len(x)).flip(0)
    y[:] = x[order]
    return m.lin(view.view_as(x)).tanh()[order]


def some_samples(m: Any, x: Tensor, mask: Tensor) -> Tensor:
    chosen = (~mask).any(1)
    y = m.lin(x)
    if bool(chosen.any()):
        y[chosen] = y[chosen] + m.other(x[chosen]).tanh()
    return y


def sliced_samples(m: Any, x: Tensor, mask: Tensor) -> Tensor:
    """One sample after another, each without its padding."""
    pooled = [m.lin(one[: int(n)]).tanh().sum(0) for one, n in zip(x, mask.sum(1), strict=True)]
    return m.other(torch.stack(pooled))


FAST = {
    "packed recurrent": packed_recurrent,
    "unpadded": unpadded,
    "packed": packed,
    "experts": experts,
    "dispatched": dispatched,
    "sorted": sorted_by_length,
    "graph": graph,
    "masked token": masked_token,
    "where token": where_token,
    "out=": out_given,
    "a parameter by out=": parameter_written_by_out,
    "through views": through_views,
    "some samples": some_samples,
    "one after another": sliced_samples,
}
SLOW = {
    "deduplicated": deduplicated,
    "rows swapped through a view": rows_swapped_through_a_view,
}


def batch(lengths: list[int], seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(len(lengths), max(lengths), W, generator=generator).double()
    return {"x": x, "mask": torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]}


DATA = [batch([3, 3], 1), batch([4, 1, 3, 2]), batch([2], 2), batch([1, 5, 5], 3), batch([4, 4, 4, 4], 4)]


def distance(function: Callable[..., Tensor], data: Any = DATA, **options: Any) -> tuple[float, list[str]]:
    """How far from the reference, and what was said of slow parameters."""
    torch.manual_seed(0)
    model = Net(function).double().eval()
    with warnings.catch_warnings(record=True) as caught, unchanged(model):
        warnings.simplefilter("always")
        found = forgetless.mas(model, data, progress=False, **options)
    said = [str(each.message) for each in caught if "one sample at a time" in str(each.message)]
    return worst(found, forgetless.reference.mas(model, data)), said


@pytest.mark.parametrize("name", [*FAST, *SLOW])
def test_exact_for_unequal_lengths(name: str) -> None:
    error, said = distance({**FAST, **SLOW}[name], prove=False)
    assert error <= 1e-10
    assert bool(said) == (name in SLOW), said


@pytest.mark.parametrize("name", ["unpadded", "experts", "deduplicated"])
def test_the_proof_has_nothing_to_say_of_them(name: str) -> None:
    error, said = distance({**FAST, **SLOW}[name])
    assert error <= 1e-10
    assert not any("later batch" in each for each in said)


def mask_off_by_one(patch: Patch) -> None:
    """The samples of rows that a mask selects are those of the next row."""
    right = routing._numbered

    def shifted(*args: Any) -> Tensor | None:
        numbers = right(*args)
        return numbers.roll(1, 0) if numbers is not None and numbers.dim() and len(numbers) > 1 else numbers

    patch.setattr(routing, "_numbered", shifted)


def order_not_applied(patch: Patch) -> None:
    """`x[order]` and index_select are taken to leave the rows where they are."""
    right = routing._numbered

    def same(rows: Rows, x: Tensor, index: Any, samples: int) -> Tensor | None:
        numbers = rows.numbers(x.shape[rows.axis or 0], samples)
        found = right(rows, x, index, samples)
        return numbers if found is not None and numbers is not None and found.shape == numbers.shape else found

    patch.setattr(routing, "_numbered", same)


def lost_is_regular(patch: Patch) -> None:
    """What is lost is taken to be in the order of the batch."""
    for module in (follow, routing, shapes, rows_module):
        patch.setattr(module, "lost", lambda operation: rows_module.REGULAR)


def padding_counted(patch: Patch) -> None:
    """Rows that are filled in for samples with fewer of them have gradients of their own."""
    right = tape.Samples.padded
    patch.setattr(tape.Samples, "padded", lambda self, values, fill=None: right(self, values))


def writing_ignored(patch: Patch) -> None:
    """Writing in place changes nothing of what is known."""
    patch.setattr(
        follow, "_written", lambda name, args, kwargs, samples: provenance.rows_of(args[0]) or rows_module.REGULAR
    )
    patch.setattr(follow, "rewritten", lambda target, before, now, samples: provenance.note(target, before or now))


FAULTS: dict[Callable[[Patch], None], tuple[str, ...]] = {
    mask_off_by_one: ("unpadded", "experts", "graph"),
    order_not_applied: ("dispatched",),
    lost_is_regular: ("rows swapped through a view",),
    padding_counted: ("packed", "experts"),
    writing_ignored: ("rows swapped through a view",),
}
PAIRS = [(fault, name) for fault, names in FAULTS.items() for name in names]


@pytest.mark.parametrize(("fault", "name"), PAIRS, ids=lambda value: getattr(value, "__name__", value))
def test_a_planted_fault_is_seen(fault: Callable[[Patch], None], name: str, monkeypatch: Patch) -> None:
    fault(monkeypatch)
    monkeypatch.setattr(tape.Tape, "end", lambda self, values: setattr(self, "_ended", True))  # the net behind it
    # The first two samples are of equal lengths, in order: the check of two is no help, only the rows' samples are.
    error, said = distance({**FAST, **SLOW}[name], prove=False)
    assert error > 1e-6 or bool(said) != (name in SLOW)


@pytest.mark.parametrize("fault", [lost_is_regular, writing_ignored])
def test_rows_that_do_not_lead_to_the_output_are_not_believed(
    fault: Callable[[Patch], None], monkeypatch: Patch
) -> None:
    fault(monkeypatch)
    error, said = distance(rows_swapped_through_a_view, prove=False)
    assert error <= 1e-10
    assert said
