"""`Proof`: now and then one random sample of a batch is measured alone as well, and must come out the same.

The check of two samples and the provenance of rows say why batches are measured rightly; this looks whether they are.
If a share q of all samples is measured wrongly, m proofs find it with probability `1 − (1 − q)^m`. The first batch is
proven, and later ones as often as costs no more than 3 % of the passes.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from forgetless.measure.engine.distance import sketch
from forgetless.measure.engine.passes import alone, batched_sums
from forgetless.measure.engine.plan import AGREE, agreement, coupled
from forgetless.measure.engine.target import Target
from forgetless.model import batches
from forgetless.model.restored import in_float64

SHARE = 0.03  # of the time of the passes that proofs may take


@dataclass
class Proof:
    """When to prove, and what was proven.

    Attributes:
        proofs: how many samples have been measured alone as well.
    """

    proofs: int = 0
    _spent: float = 0.0
    _passes: float = 0.0
    _choice: random.Random = field(default_factory=lambda: random.Random(0))

    def chosen(self, samples: int) -> int | None:
        """The sample of the next piece to prove, or None."""
        if samples < 2:
            return None
        each = self._spent / self.proofs if self.proofs else 0.0
        due = not self.proofs or self._spent + each <= SHARE * self._passes
        return self._choice.randrange(samples) if due else None

    def took(self, seconds: float, more: float = 0.0) -> None:
        """A piece took so long, and so much more because one of its samples is proven."""
        self._passes += seconds
        self._spent += more

    def disagreeing(
        self,
        target: Target,
        piece: Any,
        chosen: int,
        sketches: Mapping[str, Tensor],
        value: Tensor,
    ) -> tuple[list[str], bool]:
        """Which parameters one sample's gradient is wrong of, and whether even its scalar is another than alone.

        Args:
            target: what was measured in the batch.
            piece: the batch.
            chosen: the sample that was looked at.
            sketches: `sketch` of its gradients as the tape has them, of the parameters that took part.
            value: its scalar in the batch.
        """
        start = time.perf_counter()
        gradients, own = alone(target, batches.rows(piece, chosen, chosen + 1))
        tolerance = agreement(target, value)
        another = float((own - value).abs().max()) > tolerance * float(own.abs().max())
        another = another and (value.dtype == torch.float64 or coupled(target, piece, chosen))
        wrong = [] if another else _differing(sketches, {n: sketch(g) for n, g in gradients.items()}, tolerance)
        if wrong and value.dtype != torch.float64:
            wrong = _in_float64(target.only(wrong), piece, chosen)
        self.proofs += 1
        self._spent += time.perf_counter() - start
        return wrong, another


def _differing(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: float) -> list[str]:
    largest = max((float(each[0]) for each in expected.values()), default=0.0)
    wrong = []
    for name in {**expected, **found}:
        mine, theirs = found.get(name), expected.get(name)
        if mine is None or theirs is None:
            other = mine if theirs is None else theirs
            if other is not None and float(other[0]) > tolerance * largest:
                wrong.append(name)
            continue
        scale = max(float(theirs[0]), float(mine[0]))
        peak = max(float(theirs[2:].abs().max()), float(mine[2:].abs().max()))
        gap = (mine - theirs).abs()
        rounding = torch.finfo(torch.float32).eps * tolerance * largest  # where mathematics says 0
        if float(gap[:2].max()) > tolerance * scale + rounding or float(gap[2:].max()) > tolerance * peak + rounding:
            wrong.append(name)
    return wrong


def _in_float64(target: Target, piece: Any, chosen: int) -> list[str]:
    """Those that disagree in float64 too: in float32 an activation may fall on another side of a kink in a batch."""
    try:
        with in_float64(target.module) as widened:
            wide = batches.mapped(piece, widened)
            _, _, tape = batched_sums(target, wide, watched=chosen)
            gradients, _ = alone(target, batches.rows(wide, chosen, chosen + 1))
            expected = {name: sketch(gradient) for name, gradient in gradients.items()}
            return _differing(tape.sketches, expected, AGREE[torch.float64])
    except RuntimeError:  # a network that insists on its own dtype: the safe path
        return list(target.parameters)
