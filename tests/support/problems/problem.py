"""What a problem is: a network, a batch for it, and the options it is measured with."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

Made = tuple[nn.Module, Any, dict[str, Any]]
Kind = Literal["layer", "use", "routed", "alike", "late", "network"]
Batch = tuple[int, ...] | Callable[[], Any]  # a shape of random numbers, or what makes the batch


@dataclass(frozen=True)
class Problem:
    """A network, a batch for it, and the options of `forgetless.mas` that it is measured with.

    Attributes:
        name: what it shows, unique.
        kind: a layer, a use of parameters that no layer of `torch.nn` has, rows that follow the data, another axis
            as long as the batch, what shows in later batches only, or a whole network.
        build: makes (model, batch, options) with torch's random generator.
        needs: a package that is no dependency of the tests, without which the problem is skipped.
        half_exact: computes in float32 in part, whatever its dtype, so that float64 cannot show more.
        trained: comes with weights of its own, which stay as they are.
    """

    name: str
    kind: Kind
    build: Callable[[], Made]
    needs: str | None = None
    half_exact: bool = False
    trained: bool = False

    def make(self, dtype: torch.dtype = torch.float32) -> Made:
        """The problem in `dtype`, in eval mode, the same at every call; no parameter sits at its initial 0 or 1."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(zlib.crc32(self.name.encode()))
            model, batch, options = self.build()
            if not self.trained:
                _train(model)
        return model.to(dtype).eval(), _cast(batch, dtype), options

    def __str__(self) -> str:
        return self.name


def module(
    name: str,
    kind: Kind,
    build: Callable[[], nn.Module],
    batch: Batch,
    *,
    needs: str | None = None,
    half_exact: bool = False,
    trained: bool = False,
    **options: Any,
) -> Problem:
    """A module on a batch."""

    def make() -> Made:
        return build(), torch.randn(batch) if isinstance(batch, tuple) else batch(), options

    return Problem(name, kind, make, needs, half_exact, trained)


def ids(below: int, *shape: int) -> Callable[[], Tensor]:
    """Makes random integers `0 … below - 1`."""
    return lambda: torch.randint(0, below, shape)


def _train(model: nn.Module) -> None:
    """Move what initialization leaves constant to where training could have left it."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point() and bool((parameter == parameter.flatten()[0]).all()):
                parameter += 0.3 * torch.randn_like(parameter)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.2)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2)


def _cast(batch: Any, dtype: torch.dtype) -> Any:
    def cast(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    return tree_map(cast, batch)
