"""How sure an importance is, told from how much the batches it was measured on differ.

Ω is a mean over samples, so it has a standard error. Let `S_b` be the sums of batch b over its `n_b` samples,
`S = Σ_b S_b`, `N = Σ_b n_b`, and B how many batches. The variance of one sample's `|g_n|`, added up over the elements
of a parameter, has the unbiased estimate

    V = (Σ_b ‖S_b‖² / n_b − ‖S‖² / N) / (B − 1)

whatever the sizes of the batches, and `Ω = S / N` is off by `√(V / N) / ‖Ω‖` of its own norm: the relative standard
error. One number per parameter and batch is all it takes. Which weights matter *most* is a question about ranks; for it
the sums of every other batch are kept as well: the half's mean is as far from the whole's as the whole's is from the
truth, so that the top that half and whole share is the share of the top that is right.

Both take the samples to be drawn independently from what is to be kept; a sorted stream looks surer than it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from forgetless.errors import ForgetlessError
from forgetless.model import sharding

_HALF = " (half)"  # behind a parameter's name, in files


@dataclass
class Confidence:
    """What is remembered of the batches; it grows with `add` and pools with `merge`.

    Attributes:
        squares: parameter name → `Σ_b ‖S_b‖² / n_b`.
        batches: B.
        half: parameter name → `S` of every other batch.
        half_count: the samples in those batches.
    """

    squares: dict[str, float] = field(default_factory=dict)
    batches: int = 0
    half: dict[str, Tensor] = field(default_factory=dict)
    half_count: float = 0.0

    def add(self, sums: Mapping[str, Tensor], samples: int) -> None:
        """Take in a batch: `S_b` by name and `n_b`."""
        for name, total in sums.items():
            norm = _norm(total)
            self.squares[name] = self.squares.get(name, 0.0) + norm**2 / samples
            if self.batches % 2 == 0:
                self.half[name] = self.half[name].add_(total) if name in self.half else total.clone()
        self.half_count += samples if self.batches % 2 == 0 else 0
        self.batches += 1

    def merge(self, other: Confidence) -> Confidence:
        """Both together; neither is changed."""
        squares = {n: self.squares.get(n, 0.0) + other.squares.get(n, 0.0) for n in {**self.squares, **other.squares}}
        half = {name: total.clone() for name, total in self.half.items()}
        for name, total in other.half.items():
            half[name] = half[name].add_(total.to(half[name])) if name in half else total.clone()
        count = self.half_count + other.half_count
        return Confidence(squares, self.batches + other.batches, half, count)

    def whole(self) -> Confidence:
        """The same with no tensor sharded."""
        return replace(self, half={name: sharding.whole(total) for name, total in self.half.items()})

    def error(self, sums: Mapping[str, Tensor], count: float) -> dict[str, float]:
        """`√(V / N) / ‖Ω‖` by parameter; 0 where Ω is 0, infinite as long as there is only one batch."""
        errors = {}
        for name, total in sums.items():
            square = _norm(total) ** 2
            if square == 0:
                errors[name] = 0.0
            elif self.batches < 2:
                errors[name] = math.inf
            else:
                excess = self.squares.get(name, 0.0) - square / count
                errors[name] = math.sqrt(max(0.0, excess) / (self.batches - 1) * count / square)
        return errors

    def overlap(self, sums: Mapping[str, Tensor], count: float, top: float) -> float:
        """The share of the `top` most important weights that are so in truth, as estimated from the halves.

        Raises:
            ForgetlessError: `top` is no share, or there is only one batch.
        """
        if not 0 < top < 1:
            raise ForgetlessError(f"top must be a share of the weights between 0 and 1, not {top!r}.")
        if self.batches < 2:
            raise ForgetlessError(
                f"an overlap needs at least two batches, not {self.batches}: measure with a smaller batch_size."
            )
        halves = [self.half.get(name, torch.zeros_like(total)) for name, total in sums.items()]
        whole = torch.cat([sharding.whole(total).reshape(-1) for total in sums.values()])
        half = torch.cat([sharding.whole(total).reshape(-1) for total in halves])
        best = _top(whole, top)
        shared = [int((best & _top(part, top)).sum()) for part in (half, whole - half)]
        return sum(shared) / (2 * max(1, int(best.sum())))

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What a file keeps of it: a part for JSON, and tensors under names that no parameter has."""
        plain = {"squares": self.squares, "batches": self.batches, "half_count": self.half_count}
        return plain, {name + _HALF: total for name, total in self.half.items()}

    @classmethod
    def restored(cls, plain: Any, tensors: dict[str, Tensor]) -> Confidence:
        """What `state` gave, read back; its tensors are taken out of `tensors`.

        Raises:
            ForgetlessError: it is not what `state` gave.
        """
        half = {name.removesuffix(_HALF): tensors.pop(name) for name in list(tensors) if name.endswith(_HALF)}
        try:
            squares = {str(name): float(value) for name, value in plain["squares"].items()}
            found = cls(squares, int(plain["batches"]), half, float(plain["half_count"]))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ForgetlessError("its header does not say how sure it is.") from error
        shapes = {name: total.shape for name, total in tensors.items()}
        if not set(squares) <= set(shapes) or any(total.shape != shapes.get(name) for name, total in half.items()):
            raise ForgetlessError("its header and its tensors speak of other parameters.")
        return found


def _norm(total: Tensor) -> float:
    """The Euclidean norm, of a sharded tensor too, where every rank must ask for it."""
    return float(sharding.whole(torch.linalg.vector_norm(total, dtype=torch.float64)))


def _top(values: Tensor, share: float) -> Tensor:
    """Which values are among the `share` largest; never a zero."""
    k = max(1, round(share * values.numel()))
    return (values >= values.kthvalue(values.numel() - k + 1).values) & (values > 0)
