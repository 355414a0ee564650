"""RNN, LSTM and GRU, layers and cells, said step by step in terms of `F.linear`.

The fused kernels of torch give no gradients of single steps. A weight used at every step is one parameter used T times:
its uses add up inside a sample, before the modulus, as for any reused parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from forgetless.measure.kernels.parts.rule import Operation, Rewrite

State = tuple[Tensor, ...]
Step = Callable[[Tensor, State, Tensor, "Tensor | None", "Tensor | None"], State]


def _lstm_step(gates: Tensor, state: State, w: Tensor, b: Tensor | None, projection: Tensor | None) -> State:
    """`i, f, g, o = x̃ + W_h h`; `c' = σ(f) c + σ(i) tanh(g)`; `h' = σ(o) tanh(c')`, projected if there is a matrix."""
    i, f, g, o = (gates + functional.linear(state[0], w, b)).chunk(4, -1)
    cell = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    hidden = o.sigmoid() * cell.tanh()
    return (hidden if projection is None else functional.linear(hidden, projection)), cell


def _gru_step(gates: Tensor, state: State, w: Tensor, b: Tensor | None, projection: Tensor | None) -> State:
    """`r, z = σ(x̃ + W_h h)`; `n = tanh(x̃_n + r (W_h h)_n)`; `h' = (1 − z) n + z h`."""
    r, z, n = gates.chunk(3, -1)
    hidden_r, hidden_z, hidden_n = functional.linear(state[0], w, b).chunk(3, -1)
    update = (z + hidden_z).sigmoid()
    new = (n + (r + hidden_r).sigmoid() * hidden_n).tanh()
    return (new - update * (new - state[0]),)


def _simple_step(activation: Callable[[Tensor], Tensor]) -> Step:
    def step(gates: Tensor, state: State, w: Tensor, b: Tensor | None, projection: Tensor | None) -> State:
        return (activation(gates + functional.linear(state[0], w, b)),)

    return step


def _direction(
    step: Step, steps: Sequence[int], x: Tensor, state: State, weights: Sequence[Tensor], bias: bool, last: bool
) -> tuple[Tensor, State]:
    """One layer in one direction over x `[T, N, I]`: outputs `[T, N, H]` and the last state."""
    w_ih, w_hh = weights[0], weights[1]
    b_ih, b_hh = (weights[2], weights[3]) if bias else (None, None)
    gates = functional.linear(x, w_ih, b_ih)
    outputs: dict[int, Tensor] = {}
    for t in steps:
        state = step(gates[t], state, w_hh, b_hh, weights[-1] if last else None)
        outputs[t] = state[0]
    return torch.stack([outputs[t] for t in range(len(outputs))]), state


def _packed_direction(
    step: Step,
    sizes: Sequence[int],
    x: Tensor,
    state: State,
    weights: Sequence[Tensor],
    bias: bool,
    last: bool,
    back: bool,
) -> tuple[Tensor, State]:
    """As `_direction` over x `[R, I]`, of time t the first `sizes[t]` sequences: outputs `[R, H]` and last states."""
    b_ih, b_hh = (weights[2], weights[3]) if bias else (None, None)
    gates = torch.split(functional.linear(x, weights[0], b_ih), list(sizes))
    outputs: dict[int, Tensor] = {}
    begun, ended = state, []
    state = tuple(part[: sizes[-1] if back else sizes[0]] for part in begun)
    for t in range(len(sizes) - 1, -1, -1) if back else range(len(sizes)):
        now, here = sizes[t], len(state[0])
        if now > here:  # backwards, sequences join with their first state
            state = tuple(torch.cat([part, first[here:now]]) for part, first in zip(state, begun, strict=True))
        elif now < here:  # forwards, those that are over keep their last
            ended.append(tuple(part[now:] for part in state))
            state = tuple(part[:now] for part in state)
        state = step(gates[t], state, weights[1], b_hh, weights[-1] if last else None)
        outputs[t] = state[0]
    ends = [state, *reversed(ended)]
    final = tuple(torch.cat([each[i] for each in ends]) for i in range(len(state)))
    return torch.cat([outputs[t] for t in range(len(sizes))]), final


def _nothing(rows: Tensor) -> Tensor:
    """Zeros `[N, 1]` that are the samples' as `rows` `[N, I]` are, NaN or not.

    The first state is often all zeros, made from nothing: adding these says whose it is.
    """
    return rows.detach()[..., :1].masked_fill(torch.ones((), dtype=torch.bool, device=rows.device), 0)


def _layers(step: Step) -> Rewrite:
    """`torch.lstm` and its kin over x `[T, N, I]`, or `[N, T, I]` with `batch_first`, or packed `[R, I]`."""

    def run(input: Tensor, *rest: Any) -> Any:
        packed = bool(rest) and isinstance(rest[0], Tensor) and not rest[0].is_floating_point()
        if len(rest) != 8 or rest[6 if packed else 5]:
            return NotImplemented  # in training
        if packed:  # (data, batch_sizes, hx, params, has_biases, num_layers, dropout, train, bidirectional)
            sizes, (hx, params, has_biases, num_layers, _, _, bidirectional) = rest[0].tolist(), rest[1:]
            x, batch_first = input, False
        else:  # (input, hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first)
            hx, params, has_biases, num_layers, _, _, bidirectional, batch_first = rest
            x, sizes = input.transpose(0, 1) if batch_first else input, []
        zeros = _nothing(x[: sizes[0]] if packed else x[0]).unsqueeze(0)
        states = [state + zeros for state in (hx if isinstance(hx, (tuple, list)) else [hx])]
        directions = 2 if bidirectional else 1
        count = len(params) // (num_layers * directions)
        projected = count % 2 == 1
        finals = []
        for layer in range(num_layers):
            outputs = []
            for direction in range(directions):
                k = layer * directions + direction
                state, weights = tuple(state[k] for state in states), params[k * count : (k + 1) * count]
                if packed:
                    back = direction == 1
                    output, final = _packed_direction(step, sizes, x, state, weights, has_biases, projected, back)
                else:
                    steps = range(len(x)) if direction == 0 else range(len(x) - 1, -1, -1)
                    output, final = _direction(step, steps, x, state, weights, has_biases, projected)
                outputs.append(output)
                finals.append(final)
            x = torch.cat(outputs, -1) if directions == 2 else outputs[0]
        ends = [torch.stack([final[i] for final in finals]) for i in range(len(states))]
        return x.transpose(0, 1) if batch_first else x, *ends

    return run


def _cell(step: Step) -> Rewrite:
    """`torch.lstm_cell` and its kin: one step of x `[N, I]`."""

    def run(
        input: Tensor, hx: Any, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None, b_hh: Tensor | None = None
    ) -> Any:
        states = tuple(hx) if isinstance(hx, (tuple, list)) else (hx,)
        states = tuple(state + _nothing(input) for state in states)
        state = step(functional.linear(input, w_ih, b_ih), states, w_hh, b_hh, None)
        return state if len(state) > 1 else state[0]

    return run


REWRITES: dict[Operation, Rewrite] = {
    torch.lstm: _layers(_lstm_step),
    torch.gru: _layers(_gru_step),
    torch.rnn_tanh: _layers(_simple_step(torch.tanh)),
    torch.rnn_relu: _layers(_simple_step(torch.relu)),
    torch.lstm_cell: _cell(_lstm_step),
    torch.gru_cell: _cell(_gru_step),
    torch.rnn_tanh_cell: _cell(_simple_step(torch.tanh)),
    torch.rnn_relu_cell: _cell(_simple_step(torch.relu)),
}
