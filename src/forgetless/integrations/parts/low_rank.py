"""The penalty on what LoRA adapters change of a base weight, and its gradient.

The adapters k that are active move a weight W [o, i] by a product of thin matrices. What is to be kept is the weight as
it was when it was anchored, `W + Δ*`: Δ* is 0 with fresh adapters, and the product of that time's adapters otherwise.

    ΔW = Σ_k s_k B_k A_k             B_k [o, r_k],  A_k [r_k, i],  s_k = α/r, or α/√r (rsLoRA)

With `E = ΔW − Δ*` and `F = 2 λ Ω ⊙ E` the penalty and its gradient are

    P = λ Σ Ω E²,    ∂P/∂B_k = s_k F A_kᵀ,    ∂P/∂A_k = s_k B_kᵀ F

DoRA makes `W + ΔW = c ⊙ V` of `V = W + s B A`, with `c = m / ‖V‖` and `u = V / ‖V‖` for each row. Then
`∂P/∂m = Σ_i F u` and `∂P/∂V = c (F − (Σ_i F u) u)`, which takes the place of F above. (In the loss PEFT takes ‖V‖ for a
constant, as the paper of DoRA does; this gradient is exact.)

Neither ΔW nor E ever exists as a whole: both are made for a few rows at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from forgetless.integrations.parts.adapted_layer import Adapter, Change, adapters_of, base_matrix, factors
from forgetless.protect.anchored_parameter import pieces


@dataclass(frozen=True)
class Block:
    """A few rows of a weight.

    Attributes:
        rows: which.
        importance: Ω.
        away: E, a new tensor.
        direction: DoRA's u; None for LoRA.
        factor: DoRA's c [rows, 1]; None for LoRA.
    """

    rows: slice
    importance: Tensor
    away: Tensor
    direction: Tensor | None = None
    factor: Tensor | None = None


@dataclass(eq=False)
class AdaptedWeight:
    """A base weight, what matters in it, and the adapters that change it.

    Attributes:
        name: the base weight's.
        layer: PEFT's layer around it, whose active adapters are asked for anew each time.
        importance: Ω as a matrix [o, i].
        kept: Δ*; None for 0.
    """

    name: str
    layer: Any
    importance: Tensor
    kept: Change | None = None

    def adapters(self) -> list[Adapter]:
        """The adapters that are active now."""
        return adapters_of(self.layer)

    @torch.no_grad()
    def drift(self) -> float:
        """`Σ Ω E²`."""
        return math.fsum(float((block.importance * block.away.square()).sum()) for block in self._blocks())

    def away(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """P and Q with `P Q = E` for `ΔW = L R`, of LoRA."""
        if self.kept is None:
            return left, right
        return torch.cat((left, -self.kept.left.to(left)), 1), torch.cat((right, self.kept.right.to(right)), 0)

    @torch.no_grad()
    def gradients(self, strength: float) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Every A, B and m of the active adapters with `∂P/∂·`, in its shape; float32 or wider."""
        adapters = self.adapters()
        left, right = factors(self.layer)
        to_left, to_right = torch.zeros_like(left), torch.zeros_like(right)
        to_magnitude = left.new_zeros(len(left))
        for block in self._blocks():
            force = block.away.mul_(block.importance).mul_(2 * strength)
            if block.direction is not None and block.factor is not None:
                along = (force * block.direction).sum(1, keepdim=True)
                to_magnitude[block.rows] = along[:, 0]
                force.addcmul_(along, block.direction, value=-1).mul_(block.factor)
            to_left[block.rows] = force @ right.T
            to_right.addmm_(left[block.rows].T, force)
        ranks = [len(each.a) for each in adapters]
        for each, b, a in zip(adapters, torch.split(to_left, ranks, 1), torch.split(to_right, ranks, 0), strict=True):
            yield each.b, (each.scale * b).view(each.b.shape)
            yield each.a, a.reshape(each.a.shape)
            if each.magnitude is not None:
                yield each.magnitude, to_magnitude.view(each.magnitude.shape)

    def _blocks(self) -> Iterator[Block]:
        adapters, (left, right) = self.adapters(), factors(self.layer)
        magnitude = adapters[0].magnitude if adapters else None
        if magnitude is None and (self.kept is None or self.kept.factor is None):
            p, q = self.away(left, right)
            for (rows,) in pieces(tuple(self.importance.shape), self.importance.device):
                yield Block(rows, self.importance[rows].to(p), p[rows] @ q)
            return
        base, moved = base_matrix(self.layer).to(left), Change(left, right)
        for (rows,) in pieces(tuple(self.importance.shape), self.importance.device):
            now, direction, factor = moved.rows(base, rows), None, None
            if magnitude is not None:
                norm = now.norm(dim=1, keepdim=True).clamp_(min=torch.finfo(now.dtype).tiny)
                factor = magnitude.detach().view(-1, 1).to(now)[rows] / norm
                direction = now / norm
                now = now * factor
            then = base[rows] if self.kept is None else self.kept.rows(base, rows)
            yield Block(rows, self.importance[rows].to(now), now - then, direction, factor)
