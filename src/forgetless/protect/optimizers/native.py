"""The pull by the compiled pass `pull.c`, where installation could build it: float32 on the CPU.

One pass over the memory for all parameters together; without it `Move.apply` does the same in torch's operations, piece
by piece. Everything is checked here, for the C code trusts its caller.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from forgetless.protect.optimizers.move import Move

try:
    from forgetless.protect.optimizers import _pull  # type: ignore[attr-defined]
except ImportError:  # installed without a compiler
    _pull = None

_ONE, _PLAIN, _ROOT, _CENTRED = range(4)  # what D is; the same in pull.c


def available() -> bool:
    """Whether the compiled pass is there."""
    return _pull is not None


def serves(move: Move) -> bool:
    """Whether the compiled pass is there and takes this move.

    Weights, θ* and what D is made of are float32 on the CPU, Ω is that or bfloat16, all of them dense in memory with
    the same strides, and the rates are known without asking a device.
    """
    if _pull is None or move.response.reach is not None:
        return False
    weights, response = move.weights, move.response
    shape, stride, single = weights.shape, weights.stride(), weights.numel() <= 1
    for tensor in move.operands():
        if type(tensor) not in (Tensor, nn.Parameter):
            return False
        if tensor.dtype != torch.float32 and not (tensor is move.importance and tensor.dtype == torch.bfloat16):
            return False
        if not tensor.is_cpu or tensor.layout != torch.strided or tensor.is_neg():
            return False
        if tensor.shape != shape or (tensor.stride() != stride and not single):
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
                move.importance.data_ptr(),
                move.importance.dtype == torch.bfloat16,
                0 if second is None else second.data_ptr(),
                0 if mean is None else mean.data_ptr(),
                _ONE if second is None else divisor if mean is None else _CENTRED,
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
