"""Rows that follow the data: what is left out, sorted, packed, routed or written where the inputs say so."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from problems.problem import Batch, Problem, ids, module
from problems.uses import Part, Uses

wide = partial(nn.Linear, 3, 4)
square = partial(nn.Linear, 3, 3)


def routed(name: str, function: Callable[[Any, Any], Any], batch: Batch = (6, 5, 3), **parts: Part) -> Problem:
    """`function(module, x)` on a batch, whose values decide which rows go where."""
    return module(name, "routed", lambda: Uses(function, **parts), batch)


def kept(x: Tensor) -> Tensor:
    """Which positions count, `[N, T]`: unequally many in every sample, and one at least."""
    return (x[..., 0] > -0.4) | (torch.arange(x.shape[1]) == 0)


def lengths(x: Tensor) -> Tensor:
    return kept(x).sum(1)


def put_back(x: Tensor, mask: Tensor, rows: Tensor) -> Tensor:
    return rows.new_zeros(*x.shape[:2], rows.shape[-1]).index_put((mask,), rows)


def unpadded(m: Any, x: Tensor) -> Tensor:
    """Padding leaves before the layer and does not come back: tokens are summed by their owner."""
    mask = kept(x)
    owner = mask.nonzero()[:, 0]
    return x.new_zeros(len(x), 4).index_add(0, owner, m.lin(x[mask]).tanh())


def unpadded_attention(m: Any, x: Tensor) -> Tensor:
    """Norms, projections and the MLP on tokens without padding, attention with it, as ModernBERT does."""
    mask = kept(x)
    tokens = m.norm(x[mask])
    q, k, v = put_back(x, mask, m.qkv(tokens)).unsqueeze(1).chunk(3, -1)
    mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None]).squeeze(1)[mask]
    tokens = tokens + m.out(mixed)
    return put_back(x, mask, tokens + m.mlp(tokens).tanh()).sum(1)


def packed_layer(m: Any, x: Tensor) -> Tensor:
    packed = pack_padded_sequence(x, lengths(x), batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(packed._replace(data=m.lin(packed.data).tanh()), batch_first=True)[0].sum(1)


def packed_lstm(m: Any, x: Tensor) -> Tensor:
    packed = pack_padded_sequence(x, lengths(x), batch_first=True, enforce_sorted=False)
    return m.lstm(packed)[1][0][-1]


def packed_gru(m: Any, x: Tensor) -> Tensor:
    """Two layers, both ways: outputs at every step, and last states."""
    packed = pack_padded_sequence(x, lengths(x), batch_first=True, enforce_sorted=False)
    outputs, last = m.gru(packed)
    return pad_packed_sequence(outputs, batch_first=True)[0].sum(1) + last.sum((0, 2))[:, None]


def experts(m: Any, x: Tensor) -> Tensor:
    """Every token goes to one of two experts."""
    tokens = x.flatten(0, 1)
    choice = m.router(tokens).argmax(-1)
    out = tokens.new_zeros(len(tokens), 4)
    for number, expert in enumerate((m.first, m.second)):
        out[choice == number] = expert(tokens[choice == number]).tanh()
    return (out * m.router(tokens).softmax(-1).amax(-1, keepdim=True)).view(*x.shape[:2], -1)


def two_experts(m: Any, x: Tensor) -> Tensor:
    """Every token goes to the best two of three experts, weighted, as Mixtral's do."""
    tokens = x.flatten(0, 1)
    weights, chosen = m.router(tokens).softmax(-1).topk(2, -1)
    out = tokens.new_zeros(len(tokens), 4)
    for number, expert in enumerate((m.first, m.second, m.third)):
        row, place = (chosen == number).nonzero(as_tuple=True)
        out.index_add_(0, row, expert(tokens[row]).tanh() * weights[row, place, None])
    return out.view(*x.shape[:2], -1)


def sorted_inside(m: Any, x: Tensor) -> Tensor:
    order = x[:, 0, 0].argsort()
    return m.lin(x[order]).tanh()[order.argsort()]


def buckets(m: Any, x: Tensor) -> Tensor:
    """Samples of about the same length are computed together."""
    out = x.new_zeros(len(x), 4)
    for size in lengths(x).unique():
        rows = (lengths(x) == size).nonzero()[:, 0]
        out = out.index_copy(0, rows, m.lin(x[rows, : int(size)]).tanh().sum(1))
    return out


def left_early(m: Any, x: Tensor) -> Tensor:
    """Samples that are sure after the first layer leave."""
    h = m.lin(x.mean(1)).tanh()
    stays = h[:, 0] < 0.1
    return h.index_put((stays,), m.more(h[stays]).tanh())


def graph(m: Any, x: Tensor) -> Tensor:
    """Nodes of all graphs in one list, messages along edges, a sum for each graph."""
    near = (x[:, :, None, 0] - x[:, None, :, 0]).abs() < 0.8
    owner, source, target = near.nonzero(as_tuple=True)
    nodes, size = x.flatten(0, 1), x.shape[1]
    messages = m.lin(nodes[owner * size + source]).tanh()
    got = nodes.new_zeros(len(nodes), 4).index_add(0, owner * size + target, messages)
    return torch.zeros(len(x), 4, dtype=x.dtype).index_add(0, torch.arange(len(x)).repeat_interleave(size), got)


def durations(m: Any, x: Tensor) -> Tensor:
    """Rows repeated as often as the data say, then summed by sample."""
    rows, times = x[:, 0], lengths(x)
    owner = torch.arange(len(x)).repeat_interleave(times)
    return x.new_zeros(len(x), 4).index_add(0, owner, m.lin(rows.repeat_interleave(times, 0)).tanh())


def best_positions(m: Any, x: Tensor) -> Tensor:
    best = x[..., 0].topk(2, 1).indices
    return m.lin(x.gather(1, best[..., None].expand(-1, -1, 3))).tanh()


def token_by_index(m: Any, x: Tensor) -> Tensor:
    h = m.lin(x)
    h[~kept(x)] = m.token
    return h.tanh()


def token_by_where(m: Any, x: Tensor) -> Tensor:
    return torch.where(kept(x)[..., None], m.lin(x).tanh(), m.token)


def token_by_scatter(m: Any, x: Tensor) -> Tensor:
    mask = ~kept(x)
    return m.lin(x).tanh().masked_scatter(mask[..., None], m.token.expand(int(mask.sum()), -1))


def added_through_a_view(m: Any, x: Tensor) -> Tensor:
    h = m.lin(x)
    h[:, 0] += m.token
    return h.tanh()


def distinct_words(m: Any, x: Tensor) -> Tensor:
    """A word that several samples use is computed once."""
    words, inverse = x.unique(return_inverse=True)
    return m.lin(m.table(words)).tanh()[inverse]


ROUTED: list[Problem] = [
    routed("padding left out, tokens summed by owner", unpadded, lin=wide),
    routed(
        "a transformer block on unpadded tokens",
        unpadded_attention,
        norm=partial(nn.LayerNorm, 3),
        qkv=partial(nn.Linear, 3, 9),
        out=square,
        mlp=square,
    ),
    routed("a layer on a packed sequence", packed_layer, lin=wide),
    routed("an LSTM on a packed sequence", packed_lstm, lstm=partial(nn.LSTM, 3, 4, batch_first=True)),
    routed(
        "a GRU of two layers, both ways, on a packed sequence",
        packed_gru,
        gru=partial(nn.GRU, 3, 4, 2, batch_first=True, bidirectional=True),
    ),
    routed("one expert a token", experts, router=partial(nn.Linear, 3, 2), first=wide, second=wide),
    routed("two experts a token", two_experts, router=square, first=wide, second=wide, third=wide),
    routed("samples sorted inside", sorted_inside, lin=wide),
    routed("samples in buckets of one length", buckets, lin=wide),
    routed("samples that leave early", left_early, lin=wide, more=partial(nn.Linear, 4, 4)),
    routed("a graph in one list of nodes", graph, lin=wide),
    routed("rows repeated by length", durations, lin=wide),
    routed("the best positions", best_positions, lin=wide),
    routed("a token written by a mask", token_by_index, lin=wide, token=(4,)),
    routed("a token by torch.where", token_by_where, lin=wide, token=(4,)),
    routed("a token by masked_scatter", token_by_scatter, lin=wide, token=(4,)),
    routed("a token added through a view", added_through_a_view, lin=wide, token=(4,)),
    routed("distinct words computed once", distinct_words, ids(7, 6, 5), table=partial(nn.Embedding, 7, 3), lin=wide),
]
