"""`Rows`: the samples of a map-style dataset as one tensor whose rows are read when they are sliced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Rows(Tensor):
    """A tensor `[N, …]` that holds no data: `rows[start:stop]` reads the samples `start … stop − 1` and no others.

    The estimators slice a batch into pieces that fit the memory. Given `Rows` in place of a tensor they measure the
    same pieces, to the same bits, and only one piece is in memory at a time. Any other operation reads all rows first.

    Args:
        read: the numbers of samples, int64 `[n]` → their tensor `[n, …]` on the CPU.
        shape: `[N, …]`.
        dtype: of what `read` returns.
        device: where the rows are moved once they are read.
    """

    _read: Callable[[Tensor], Tensor]
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(
        cls,
        read: Callable[[Tensor], Tensor],
        shape: torch.Size,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> Rows:
        """Make the tensor; nothing is read."""
        rows: Rows = torch.Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device=torch.device(device))
        rows._read = read
        return rows

    def between(self, start: int, stop: int) -> Tensor:
        """The samples `start … stop − 1` as an ordinary tensor `[stop − start, …]`."""
        return self._read(torch.arange(start, max(start, stop))).to(self.device)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Slice, move and detach without reading more than is asked for; read all rows for anything else."""
        rows, given, aten = args[0], dict(kwargs or {}), torch.ops.aten
        if isinstance(rows, Rows):
            if function is aten.detach.default:
                return rows
            if function is aten._to_copy.default and given.get("dtype") in (None, rows.dtype):
                return Rows(rows._read, rows.shape, rows.dtype, given.get("device") or rows.device)
            if function is aten.slice.Tensor and args[1:2] in ((), (0,)) and args[4:] in ((), (1,)):
                start, stop, _ = slice(*(args[2:4] or (None, None))).indices(len(rows))
                return rows.between(start, stop)
            if function is aten.sum.default and not given:
                pieces = [rows.between(at, min(at + 64, len(rows))).sum() for at in range(0, len(rows), 64)]
                return torch.stack(pieces).sum()
        whole = [each.between(0, len(each)) if isinstance(each, Rows) else each for each in args]
        return function(*whole, **given)
