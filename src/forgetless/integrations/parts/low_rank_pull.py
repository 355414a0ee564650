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
  row is divided by `D/r + tr K` instead, a diagonal that is above the matrix.
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
    importance: Tensor,
    p: Tensor,
    q: Tensor,
    steps: Sequence[Step],
    designs: Sequence[Tensor],
    strength: float,
    *,
    columns: bool = False,
) -> list[Tensor]:
    """The matrices of all adapters after (1), solved for all of those together that the optimizer trains.

    Args:
        importance: Ω [o, i].
        p: with q, `E = p q` before the step, [o, ·].
        q: [·, i].
        steps: what the optimizer did to each B [o, r]; to each Aᵀ [i, r] if `columns`.
        designs: S of each, [r, i]; `s Bᵀ` [r, o] if `columns`.
        strength: λ.
        columns: move A for fixed B, instead of B for fixed A.
    """
    trained = [(step, design) for step, design in zip(steps, designs, strict=True) if step.firmness is not None]
    if not trained:
        return [step.start for step in steps]
    ranks = [len(design) for _, design in trained]
    firmness = torch.cat([step.firmness for step, _ in trained if step.firmness is not None], 1)
    change = torch.cat([step.change for step, _ in trained], 1)
    reach = torch.cat([change.new_ones(rank) * step.reach for (step, _), rank in zip(trained, ranks, strict=True)])
    force, curvature = _sums(importance, p, q, torch.cat([design for _, design in trained]), columns)
    double = 2 * min(strength, _LARGEST)
    pull = torch.empty_like(change)
    for (rows,) in pieces((len(change), 2 * sum(ranks) ** 2), change.device):
        firm, step = firmness[rows], change[rows]
        pull[rows] = _solved(double * curvature[rows], firm, firm * step - double * force[rows]) - step
    share = (reach / pull.abs()).nan_to_num_(1.0).amin(1, keepdim=True).clamp_(max=1.0)
    moves = iter(torch.split(change + share * pull, ranks, 1))
    return [step.start if step.firmness is None else step.start + next(moves) for step in steps]


def _sums(importance: Tensor, p: Tensor, q: Tensor, design: Tensor, columns: bool) -> tuple[Tensor, Tensor]:
    """`(Ω ⊙ E) Sᵀ` [n, r] and the upper triangles of `S diag(Ω) Sᵀ` [n, r (r + 1) / 2], for every row or column."""
    one, other = torch.triu_indices(len(design), len(design), device=design.device)
    products = design[one].mul_(design[other])
    size = importance.shape[1 if columns else 0]
    force, curvature = design.new_zeros(size, len(design)), design.new_zeros(size, len(products))
    for (rows,) in pieces(tuple(importance.shape), importance.device):
        weighed = importance[rows].to(design.dtype)
        away = (p[rows] @ q).mul_(weighed)
        if columns:
            force.addmm_(away.T, design[:, rows].T)
            curvature.addmm_(weighed.T, products[:, rows].T)
        else:
            torch.mm(away, design.T, out=force[rows])
            torch.mm(weighed, products.T, out=curvature[rows])
    return force, curvature


def _solved(curvature: Tensor, firmness: Tensor, force: Tensor) -> Tensor:
    """Solves `(diag(firmness) + K) x = force` for the x of every row.

    Args:
        curvature: K's upper triangle, [n, r (r + 1) / 2].
        firmness: [n, r].
        force: [n, r].
    """
    rank = force.shape[1]
    place = torch.empty(rank, rank, dtype=torch.int64, device=force.device)
    one, other = torch.triu_indices(rank, rank, device=force.device)
    place[one, other] = place[other, one] = torch.arange(len(one), device=force.device)
    # Four times as fast as curvature[:, place].
    matrix = torch.index_select(curvature, 1, place.flatten()).double().view(-1, rank, rank)
    diagonal = matrix.diagonal(dim1=-2, dim2=-1)
    above = firmness + diagonal.sum(1, keepdim=True)
    diagonal.mul_(1 + _SLACK * rank * torch.finfo(curvature.dtype).eps).add_(firmness)
    triangle, failed = torch.linalg.cholesky_ex(matrix)
    solution = torch.cholesky_solve(force.double()[..., None], triangle)[..., 0]
    return torch.where(failed[:, None] == 0, solution, force / above).to(force.dtype)
