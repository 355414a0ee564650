"""Per-sample sums by the compiled kernel `modulus.c`, where installation could build it: CPU, float32.

Index letters: n sample, t position, i in, o out, c channel, k kernel tap, p power. Everything is checked here, for the
C code trusts its caller.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forgetless.errors import ForgetlessError

try:
    from forgetless.measure.kernels.parts import _modulus  # type: ignore[attr-defined]
except ImportError:  # installed without a compiler
    _modulus = None

_switched_on = True
_Steps = Sequence[tuple[int, int]]
_COPIED = 2**22  # elements of x and d brought into channels_last at a time: memory stays flat in the batch


def available() -> bool:
    """Whether the compiled kernel is there, and not switched off."""
    return _modulus is not None and _switched_on


@contextlib.contextmanager
def switched_off() -> Iterator[None]:
    """Inside, the rules run without the compiled kernel, as where there is no compiler: for tests and benchmarks."""
    global _switched_on
    before, _switched_on = _switched_on, False
    try:
        yield
    finally:
        _switched_on = before


def serves(*operands: Tensor) -> bool:
    """Whether the compiled kernel is there and takes these operands: float32 on the CPU."""
    return available() and all(
        operand.dtype == torch.float32 and operand.device.type == "cpu" and not operand.is_neg() for operand in operands
    )


def outer(d: Tensor, a: Tensor, out: Tensor, power: int = 1) -> None:
    """`out[o,i] += Σ_n |Σ_t d[n,t,o] a[n,t,i]|^p`, in place.

    Args:
        d: output gradients [N, T, O], float32 on the CPU, any strides.
        a: inputs [N, T, I], likewise.
        out: [O, I], contiguous.
        power: 1 or 2.

    Raises:
        ForgetlessError: an operand of another kind, shape or layout; `out` is untouched.
    """
    _refuse(power, d=d, a=a, out=out)
    if not (d.dim() == a.dim() == 3 and d.shape[:2] == a.shape[:2] and out.shape == (d.shape[2], a.shape[2])):
        raise ForgetlessError(f"outer needs d [N, T, O], a [N, T, I] and out [O, I], not {_shapes(d, a, out)}.")
    if not out.is_contiguous():
        raise ForgetlessError("outer needs a contiguous out.")
    _accumulate(d, a, [(a.shape[1], a.stride(1))], [(a.shape[2], a.stride(2))], out, 1, power)


@torch.no_grad()
def convolution(
    x: Tensor,
    d: Tensor,
    out: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int = 1,
    power: int = 1,
) -> None:
    """`out[o,c,k] += Σ_n |Σ_t d[n,o,t] x[n, c, t·stride − padding + k·dilation]|^p`, in place, in 1, 2 or 3 dimensions.

    With x and d exchanged it serves the transposed convolution, whose weight is [C, O / groups, *kernel]. Fastest where
    x, d and out are in channels_last: other layouts, and padding, are copied.

    Args:
        x: inputs [N, C, *size], float32 on the CPU, any strides.
        d: output gradients [N, O, *positions], likewise.
        out: [O, C / groups, *kernel], contiguous or channels_last.
        stride: of the convolution, a number per dimension.
        padding: zeros on both sides, a number per dimension.
        dilation: a number per dimension.
        groups: of channels.
        power: 1 or 2.

    Raises:
        ForgetlessError: an operand of another kind, shape or layout; `out` is untouched.
    """
    _refuse(power, x=x, d=d, out=out)
    if not _fits(x, d, out, stride, padding, dilation, groups):
        raise ForgetlessError(
            "convolution needs x [N, C, *size], d [N, O, *positions] and out [O, C / groups, *kernel] that fit stride "
            f"{tuple(stride)}, padding {tuple(padding)}, dilation {tuple(dilation)} and {groups} groups, "
            f"not {_shapes(x, d, out)}."
        )
    sums = out.movedim(1, -1)
    if not sums.is_contiguous():
        if not out.is_contiguous():
            raise ForgetlessError("convolution needs a contiguous or channels_last out.")
        sums = torch.zeros_like(sums, memory_format=torch.contiguous_format)
    together = max(1, _COPIED // max(1, x[:1].numel() + d[:1].numel()))
    for some_x, some_d in zip(torch.split(x, together), torch.split(d, together), strict=True):
        a = _channels_last(some_x, padding)
        space = a.stride()[1:-1]
        rows = [(size, s * step) for size, s, step in zip(d.shape[2:], stride, space, strict=True)]
        columns = [(size, s * step) for size, s, step in zip(out.shape[2:], dilation, space, strict=True)]
        columns.append((out.shape[1], a.stride(-1)))
        _accumulate(_channels_last(some_d).flatten(1, -2), a, rows, columns, sums, groups, power)
    if sums.data_ptr() != out.data_ptr():
        out += sums.movedim(-1, 1)


def _refuse(power: int, **operands: Tensor) -> None:
    if _modulus is None:
        raise ForgetlessError("the compiled kernel is not there: forgetless was installed without a C compiler.")
    if power not in (1, 2):
        raise ForgetlessError(f"power must be 1 or 2, not {power!r}.")
    for name, tensor in operands.items():
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu" or tensor.layout != torch.strided:
            raise ForgetlessError(
                f"the compiled kernel needs {name} to be a strided float32 tensor on the CPU, "
                f"not {tensor.layout} {tensor.dtype} on {tensor.device}."
            )
        if tensor.is_neg():
            raise ForgetlessError(f"the compiled kernel needs {name} without torch's negative bit; call resolve_neg().")
    *inputs, (_, out) = operands.items()
    for name, tensor in inputs:
        if tensor.untyped_storage().data_ptr() == out.untyped_storage().data_ptr() and tensor.numel():
            raise ForgetlessError(f"out must not share its memory with {name}.")


def _fits(
    x: Tensor,
    d: Tensor,
    out: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> bool:
    dims = out.dim() - 2
    return (
        1 <= dims <= 3
        and x.dim() == d.dim() == dims + 2
        and len(stride) == len(padding) == len(dilation) == dims
        and min(stride) >= 1
        and min(padding) >= 0
        and min(dilation) >= 1
        and groups >= 1
        and x.shape[0] == d.shape[0]
        and out.shape[0] == d.shape[1]
        and out.shape[0] % groups == 0
        and out.shape[1] * groups == x.shape[1]
        and all(
            positions == (size + 2 * pad - step * (kernel - 1) - 1) // s + 1
            for size, positions, kernel, s, pad, step in zip(
                x.shape[2:], d.shape[2:], out.shape[2:], stride, padding, dilation, strict=True
            )
        )
    )


def _shapes(*tensors: Tensor) -> str:
    return ", ".join(str(list(tensor.shape)) for tensor in tensors)


def _channels_last(x: Tensor, padding: Sequence[int] = ()) -> Tensor:
    """Bring x [N, C, *size] into [N, *size + 2 · padding, C]: a view where that is possible, else a copy."""
    x = x.movedim(1, -1)
    if not any(padding) and (x.stride(-1) == 1 or x.shape[-1] == 1):
        return x
    margins = [*padding] or [0] * (x.dim() - 2)
    sizes = [size + 2 * margin for size, margin in zip(x.shape[1:-1], margins, strict=True)]
    make = x.new_zeros if any(margins) else x.new_empty
    padded = make((x.shape[0], *sizes, x.shape[-1]))
    inside = padded
    for dim, margin in enumerate(margins, start=1):
        inside = inside.narrow(dim, margin, x.shape[dim])
    inside.copy_(x)
    return padded


def _accumulate(d: Tensor, a: Tensor, rows: _Steps, columns: _Steps, out: Tensor, groups: int, power: int) -> None:
    """Run the C code on d [N, T, O], on a, whose positions and inputs are told by `_offsets`, and on out [O, …]."""
    samples, positions, outputs = d.shape[0], d.shape[1], d.shape[2] // groups
    inputs = math.prod(size for size, _ in columns)
    # The offsets are C's to read: the names keep them alive until it returns.
    d_rows, d_columns = _offsets((positions, d.stride(1))), _offsets((outputs, d.stride(2)))
    a_rows, a_columns = _offsets(*rows), _offsets(*columns)
    a_group = a.shape[-1] // groups * a.stride(-1)
    _modulus.accumulate(
        (d.data_ptr(), outputs * d.stride(2), d.stride(0), d_rows.ctypes.data, d_columns.ctypes.data),
        (a.data_ptr(), a_group, a.stride(0), a_rows.ctypes.data, a_columns.ctypes.data),
        out.data_ptr(),
        groups,
        samples,
        positions,
        outputs,
        inputs,
        power,
        torch.get_num_threads(),
    )


@functools.lru_cache(maxsize=256)
def _offsets(*steps: tuple[int, int]) -> NDArray[np.int64]:
    """The offsets of all elements of a tensor of these (size, stride) pairs, in its order, one after the other."""
    total = np.zeros(1, np.int64)
    for size, stride in steps:
        total = (total[:, None] + np.arange(size, dtype=np.int64) * stride).reshape(-1)
    return total
