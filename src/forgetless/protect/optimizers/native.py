"""The pull by the compiled pass `pull.c`, where installation could build it: float32 on the CPU.

One pass over the memory for all parameters together; without it `Move.apply` does the same in torch's operations, piece
by piece. Everything is checked here, for the C code trusts its caller.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from forgetless.protect.coded import Coded, Values
from forgetless.protect.optimizers.move import Move

try:
    from forgetless.protect.optimizers import _pull  # type: ignore[attr-defined]
except ImportError:  # installed without a compiler
    _pull = None

_ONE, _PLAIN, _ROOT, _CENTERED = range(4)  # what D is; the same in pull.c
_FLOATS, _HALVES, _CODES = range(3)  # how θ* and Ω are kept; the same there


def available() -> bool:
    """Whether the compiled pass is there."""
    return _pull is not None


def serves(move: Move) -> bool:
    """Whether the compiled pass is there and takes this move.

    Weights and what D is made of are float32 on the CPU, θ* is that or bfloat16, Ω one of these or in 8 bits, all of
    them dense in memory with the same strides, and the rates are known without asking a device.
    """
    if _pull is None or move.response.reach is not None:
        return False
    weights, response = move.weights, move.response
    shape, stride, single = weights.shape, weights.stride(), weights.numel() <= 1
    for tensor in (*move.operands(), _kept(move.importance)):
        if type(tensor) not in (Tensor, nn.Parameter):
            return False
        if not tensor.is_cpu or tensor.layout != torch.strided or tensor.is_neg():
            return False
        if tensor.data_ptr() % tensor.element_size():  # mapped from a file that others wrote
            return False
        if tensor.shape != shape or (tensor.stride() != stride and not single):
            return False
    floats = (each for each in move.operands() if each is not move.target)
    if any(each.dtype != torch.float32 for each in floats) or None in (_kind(move.target), _kind(move.importance)):
        return False
    rates = (response.rate, response.scale, response.epsilon)
    known = all(not isinstance(rate, Tensor) or rate.device.type == "cpu" for rate in rates)
    return known and _dense(weights)


def pull(moves: Iterable[Move]) -> list[Move]:
    """`θ ← (θ + s θ*) / (1 + s)` in place, for every move that is served here.

    Returns:
        The others, untouched.
    """
    served, others = [], []
    for move in moves:
        if not serves(move):
            others.append(move)
            continue
        response = move.response
        second, mean = response.second, response.mean
        divisor = _ROOT if response.root else _PLAIN
        served.append(
            (
                move.weights.data_ptr(),
                move.target.data_ptr(),
                _kind(move.target),
                _kept(move.importance).data_ptr(),
                _kind(move.importance),
                move.importance.levels.data_ptr() if isinstance(move.importance, Coded) else 0,
                0 if second is None else second.data_ptr(),
                0 if mean is None else mean.data_ptr(),
                _ONE if second is None else divisor if mean is None else _CENTERED,
                move.weights.numel(),
                float(move.by_importance),
                float(move.alike),
                float(response.scale),
                float(response.epsilon),
            )
        )
        torch.autograd.graph.increment_version(move.weights)
    if served:
        _pull.pull(served, torch.get_num_threads())
    return others


def _kept(values: Values) -> Tensor:
    """The tensor that holds them."""
    return values.codes if isinstance(values, Coded) else values


def _kind(values: Values) -> int | None:
    """How they are kept; None if the compiled pass does not take that."""
    if isinstance(values, Coded):
        return _CODES
    return {torch.float32: _FLOATS, torch.bfloat16: _HALVES}.get(values.dtype)


def _dense(tensor: Tensor) -> bool:
    """Whether the elements fill their memory, each once, in whatever order of the axes."""
    if tensor.is_contiguous():
        return True
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True
