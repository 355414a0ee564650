"""The pull on a product of two thin matrices: a proximal step for B, then one for A, each in closed form.

Let a step of the optimizer move B from `B₀` to `B̃` and A from `A₀` to `Ã`; under a steady gradient g it is `−r g / D`,
with the r and D of `forgetless.protect.optimizers.forms`. For fixed A the penalty `λ Σ Ω E²` of `low_rank` is quadratic
in every row b of B, and so is the proximal problem

    min over b of  Σ_t D_t / 2r (b_t − b̃_t)² + λ Σ_i Ω_i E_i²,      E = b S − …,   S = s A  [r, i]

whose solution is a system of r equations for each row. Written from `b₀`, with `K = 2 λ S diag(Ω) Sᵀ`,

    (D/r + K) (b − b₀) = D/r (b̃ − b₀) − 2 λ (Ω ⊙ E(b₀)) Sᵀ                                    (1)

Every column of A is then moved in the same way for the new B, from `a₀` and `ã`. Why this is right:

- *The end is the optimum.* B and A rest where the right-hand sides are 0, `g_B + ∂P/∂B = 0` and `g_A + ∂P/∂A = 0`, at
  every learning rate and whatever the matrix on the left is: rounding in K and the bounds below do not move that end.
- *It is finite.* `D/r + K` is positive definite, and (1) lowers the proximal objective at every λ: for fresh adapters a
  row of B becomes no longer, in the norm of D, than the optimizer left it. Where rounding spoils the factorization, the
  row is divided by `D/r + Σ_t |K_t|` instead, a diagonal that is above the matrix.
- *Adaptive optimizers keep their pace.* Where they have seen no gradient D is 0, and (1) jumps to the optimum of the
  penalty alone, which for A is 0: the adapter would be dead. The pull therefore moves no entry by more than 2 r: it can
  take back the optimizer's step and go as far again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from forgetless.protect.anchored_parameter import pieces
from forgetless.protect.optimizers.response import Response

_LARGEST = 1e20  # of 2 λ: nothing moves then
_LEAST = 1e-30  # of r and of D/r
_SLACK = 8  # units in the last place, for each row of K, by which its diagonal is raised above what rounding took


@dataclass(frozen=True)
class Step:
    """What the optimizer did to one matrix, B or Aᵀ.

    Attributes:
        start: the matrix before the step, [n, r].
        change: what the step added; 0 where the optimizer does not train it.
        firmness: D/r; None where the optimizer does not train it.
        reach: the farthest that the pull moves an entry.
    """

    start: Tensor
    change: Tensor
    firmness: Tensor | None = None
    reach: float | Tensor = math.inf

    @classmethod
    def under(cls, response: Response, start: Tensor, change: Tensor, divisor: Tensor | None) -> Step:
        """A step of an optimizer with this response; `divisor` is D in the shape of `start`, None for 1."""
        rate = torch.as_tensor(response.rate, dtype=start.dtype, device=start.device).clamp(min=_LEAST)
        wide = torch.ones_like(start) if divisor is None else divisor.to(start)
        reach = math.inf if divisor is None else 2 * rate
        return cls(start, change, (wide / rate).clamp_(min=_LEAST), reach)


def pulled(
    importance: Tensor, p: Tensor, q: Tensor, steps: Sequence[Step], designs: Sequence[Tensor], strength: float
) -> list[Tensor]:
    """The matrices of all adapters after (1), solved for all of those together that the optimizer trains.

    Args:
        importance: Ω [n, i].
        p: with q, `E = p q` before the step, [n, ·].
        q: [·, i].
        steps: what the optimizer did to each matrix.
        designs: S of each, [r, i].
        strength: λ.
    """
    trained = [(step, design) for step, design in zip(steps, designs, strict=True) if step.firmness is not None]
    if not trained:
        return [step.start for step in steps]
    together = Step(
        start=torch.cat([step.start for step, _ in trained], 1),
        change=torch.cat([step.change for step, _ in trained], 1),
        firmness=torch.cat([step.firmness for step, _ in trained if step.firmness is not None], 1),
        reach=torch.cat([step.change.new_ones(step.start.shape[1]) * step.reach for step, _ in trained]),
    )
    new = _solution(importance, p, q, together, torch.cat([design for _, design in trained]), strength)
    parts = iter(torch.split(new, [step.start.shape[1] for step, _ in trained], 1))
    return [step.start if step.firmness is None else next(parts) for step in steps]


def _solution(importance: Tensor, p: Tensor, q: Tensor, step: Step, design: Tensor, strength: float) -> Tensor:
    assert step.firmness is not None
    rank, double = len(design), 2 * min(strength, _LARGEST)
    one, other = torch.triu_indices(rank, rank, device=design.device)
    products = (design[one] * design[other]).T  # [i, r (r + 1) / 2]: K is symmetric
    found = torch.empty_like(step.start)
    for (rows,) in pieces((len(importance), max(importance.shape[1], 2 * rank * rank)), importance.device):
        weighed = importance[rows].to(design.dtype)
        force = ((p[rows] @ q).mul_(weighed) @ design.T).mul_(double)
        curvature = (weighed @ products).mul_(double)
        firm, change = step.firmness[rows], step.change[rows]
        move = _solved(curvature, (one, other), firm, firm * change - force)
        pull = move - change
        share = (step.reach / pull.abs()).nan_to_num_(1.0).amin(1, keepdim=True).clamp_(max=1.0)
        found[rows] = step.start[rows] + change + share * pull
    return found


def _solved(curvature: Tensor, place: tuple[Tensor, Tensor], firmness: Tensor, force: Tensor) -> Tensor:
    """Solves `(diag(firmness) + K) x = force` for the x of every row.

    Args:
        curvature: K's upper triangle, [n, r (r + 1) / 2].
        place: the rows and the columns of its entries.
        firmness: [n, r].
        force: [n, r].
    """
    rows, rank = force.shape
    matrix = curvature.new_zeros(rows, rank, rank, dtype=torch.float64)
    matrix[:, place[0], place[1]] = matrix[:, place[1], place[0]] = curvature.double()
    above = firmness + matrix.abs().sum(-1)
    diagonal = matrix.diagonal(dim1=-2, dim2=-1)
    diagonal.mul_(1 + _SLACK * rank * torch.finfo(curvature.dtype).eps).add_(firmness)
    triangle, failed = torch.linalg.cholesky_ex(matrix)
    solution = torch.cholesky_solve(force.double()[..., None], triangle)[..., 0]
    return torch.where(failed[:, None] == 0, solution, force / above).to(force.dtype)
