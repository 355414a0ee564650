"""Which samples sit on a kink, where rounding decides: an activation that falls on its other side in a batch.

In float32 a batch and its samples alone are not computed to the same last digit. Where an activation is within rounding
of a kink (a ReLU's 0), its gradient is another one, and no method could tell which is right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from forgetless.model import batches

# Operations whose gradient jumps, and which of their results tells on which side an element fell.
_aten = torch.ops.aten
_SIGNED = {
    _aten.relu,
    _aten.relu_,
    _aten.threshold,
    _aten.leaky_relu,
    _aten.leaky_relu_,
    _aten.abs,
    _aten._prelu_kernel,
}
_HARD = {_aten.hardtanh: (-1, 1), _aten.hardtanh_: (-1, 1), _aten.hardswish: (-3, 3), _aten.hardswish_: (-3, 3)}
_HARD |= {_aten.hardsigmoid: (-3, 3), _aten.hardsigmoid_: (-3, 3)}
_POOLS = {_aten.max_pool2d_with_indices, _aten.max_pool3d_with_indices, _aten.adaptive_max_pool2d}


class Sides(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records on which side of each kink every activation falls, sample axis first.

    Works below every torch function and layer, so it shares nothing with what it judges.
    """

    def __init__(self, samples: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.samples = samples
        self.sides: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run `func` and look at what went in."""
        kwargs, packet = kwargs or {}, func.overloadpacket
        side = None
        if packet in _SIGNED:
            side = args[0] > (args[1] if packet is _aten.threshold else 0)
        elif packet in _HARD:
            low, high = args[1:3] if packet in (_aten.hardtanh, _aten.hardtanh_) and len(args) > 2 else _HARD[packet]
            side = (args[0] > low).int() + (args[0] > high).int()
        result = func(*args, **kwargs)
        if packet in _POOLS:
            side = result[1]
        if side is not None:
            self.sides.append(side.detach().reshape(self.samples, -1).clone())
        return result


def on_a_kink(run: Callable[[Any], Any], batch: Any) -> list[int]:
    """Samples that have an activation on another side of a kink in their batch than alone.

    Args:
        run: batch → output.
        batch: tensors with the sample axis first.
    """
    samples = batches.size(batch)
    with torch.no_grad():
        with Sides(samples) as together:
            run(batch)
        found = []
        for n in range(samples):
            with Sides(1) as alone:
                run(batches.rows(batch, n, n + 1))
            pairs = zip(together.sides, alone.sides, strict=True)
            if any(not torch.equal(batched[n], single[0]) for batched, single in pairs):
                found.append(n)
    return found


def without(batch: Any, rows: list[int]) -> Any:
    """The batch without these samples."""
    samples = batches.size(batch)
    kept = [n for n in range(samples) if n not in rows]
    return batches.mapped(batch, lambda values: values[kept] if values.dim() and len(values) == samples else values)
