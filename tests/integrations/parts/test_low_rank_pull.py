"""The proximal step for B and for A: the equations, their solution, and what limits it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from forgetless.integrations.parts.low_rank_pull import Step, _solved, pulled
from forgetless.protect.optimizers.response import Response

ROWS, COLUMNS, RANK, STRENGTH = 5, 7, 3, 0.8


def problem() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Ω, B, A, how far B was moved, and D/r."""
    made = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=made, dtype=torch.float64)

    importance = random(ROWS, COLUMNS).relu()
    return importance, random(ROWS, RANK), random(RANK, COLUMNS), random(ROWS, RANK), random(ROWS, RANK).exp()


def test_a_row_of_b_minimizes_the_proximal_problem() -> None:
    importance, b, a, change, firmness = problem()
    (found,) = pulled(importance, b, a, [Step(b, change, firmness)], [a], STRENGTH)
    found.requires_grad_(True)
    target = b + change
    objective = (firmness / 2 * (found - target).square()).sum() + STRENGTH * (importance * (found @ a).square()).sum()
    (slope,) = torch.autograd.grad(objective, found)
    assert float(slope.abs().max()) < 1e-12


def test_columns_of_a_are_rows_of_the_transposed_problem() -> None:
    importance, b, a, change, firmness = problem()
    (rows,) = pulled(importance, b, a, [Step(b, change, firmness)], [a], STRENGTH)
    (columns,) = pulled(importance.T, a.T, b.T, [Step(b, change, firmness)], [a], STRENGTH, columns=True)
    torch.testing.assert_close(columns, rows)


def test_what_the_optimizer_does_not_train_stays() -> None:
    importance, b, a, change, firmness = problem()
    p, q = torch.cat((b, b), 1), torch.cat((a, a))
    fixed, moved = pulled(importance, p, q, [Step(b, change), Step(b, change, firmness)], [a, a], STRENGTH)
    assert torch.equal(fixed, b)
    assert not torch.equal(moved, b + change)


def test_the_pull_reaches_no_farther_than_two_steps_of_an_adaptive_optimizer() -> None:
    importance, b, a, change, _ = problem()
    step = Step.under(Response(0.01), b, change, torch.zeros_like(b))  # D is 0: no gradient was seen
    (found,) = pulled(importance, b, a, [step], [a], STRENGTH)
    assert float((found - b - change).abs().max()) == pytest.approx(0.02)
    assert Step.under(Response(0.01), b, change, None).reach == math.inf


def test_rows_are_solved() -> None:
    made = torch.Generator().manual_seed(1)
    half = torch.randn(ROWS, RANK, 2 * RANK, generator=made, dtype=torch.float64)
    matrix = half @ half.mT
    one, other = torch.triu_indices(RANK, RANK)
    firmness, force = torch.rand(2, ROWS, RANK, generator=made, dtype=torch.float64)
    found = _solved(matrix[:, one, other], firmness, force)
    torch.testing.assert_close((matrix @ found[..., None])[..., 0] + firmness * found, force)


def test_where_rounding_spoils_the_factorization_a_row_moves_less_instead_of_far() -> None:
    spoiled = torch.tensor([[1.0, 1.01, 1.0]]) * 1e20  # not positive definite
    force = torch.tensor([[1e3, -1e3]])
    found = _solved(spoiled, torch.full((1, 2), 1e-30), force)
    torch.testing.assert_close(found, force / 2e20)
