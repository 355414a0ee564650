"""Products said as `F.linear` give what they gave."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import forgetless
from exactness import worst
from forgetless.measure.kernels import mark_of_samples
from forgetless.measure.kernels.products import REWRITES


def of_samples(*shape: int) -> Tensor:
    x = torch.randn(shape).double()
    mark_of_samples(x)
    return x


@pytest.mark.parametrize(
    ("function", "make"),
    [
        (torch.matmul, lambda: (of_samples(3, 5, 4), torch.randn(4, 2).double())),
        (torch.matmul, lambda: (torch.randn(2, 4).double(), of_samples(3, 4, 5))),
        (torch.matmul, lambda: (of_samples(3, 4), torch.randn(4).double())),
        (torch.addmm, lambda: (torch.randn(2).double(), of_samples(3, 4), torch.randn(4, 2).double())),
        (torch.bilinear, lambda: (of_samples(3, 4), of_samples(3, 2), torch.randn(5, 4, 2).double(), None)),
        (torch.einsum, lambda: ("nti,io->nto", of_samples(3, 5, 4), torch.randn(4, 2).double())),
        (torch.einsum, lambda: ("oi,nit->nto", torch.randn(2, 4).double(), of_samples(3, 4, 5))),
        (torch.einsum, lambda: ("nti,tio->nto", of_samples(3, 5, 4), torch.randn(5, 4, 2).double())),
        (torch.einsum, lambda: ("neti,eito->neto", of_samples(3, 2, 5, 4), torch.randn(2, 4, 5, 6).double())),
        (torch.matmul, lambda: (of_samples(3, 5, 2, 4), torch.randn(5, 4, 6).double())),
        (torch.matmul, lambda: (torch.randn(5, 6, 4).double(), of_samples(3, 5, 4, 2))),
        (torch.bmm, lambda: (torch.randn(3, 6, 4).double(), of_samples(3, 4, 2))),
        (torch.baddbmm, lambda: (torch.randn(6).double(), of_samples(3, 2, 4), torch.randn(3, 4, 6).double())),
    ],
)
def test_the_same_numbers(function: Callable[..., Tensor], make: Callable[[], Any]) -> None:
    torch.manual_seed(0)
    given = make()
    torch.testing.assert_close(REWRITES[function](*given), function(*given))


@pytest.mark.skipif(not hasattr(torch, "_grouped_mm"), reason="this torch has none")
def test_rows_sorted_by_expert() -> None:
    x, matrices = of_samples(9, 16).float(), torch.randn(4, 16, 8)
    mark_of_samples(x)
    offs = torch.tensor([2, 2, 7, 9], dtype=torch.int32)  # the second expert has none
    expected = torch.cat([x[:2] @ matrices[0], x[2:7] @ matrices[2], x[7:] @ matrices[3]])
    torch.testing.assert_close(REWRITES[torch._grouped_mm](x, matrices, offs=offs), expected)
    assert REWRITES[torch._grouped_mm](x, matrices, offs=offs - 1) is NotImplemented  # a row of nobody's


@pytest.mark.skipif(not hasattr(torch, "_grouped_mm"), reason="this torch has none")
def test_experts_on_sorted_tokens_are_fast_and_exact() -> None:
    """As transformers runs its experts; torch has this product in float32 and narrower only."""

    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.w, self.out = nn.Linear(16, 3), nn.Parameter(torch.randn(3, 16, 16)), nn.Linear(16, 2)

        def forward(self, x: Tensor) -> Tensor:
            tokens = x.flatten(0, 1)
            chosen = self.gate(tokens).argmax(-1)
            order = chosen.argsort(stable=True)
            offs = torch.bincount(chosen, minlength=3).cumsum(0).int()
            mixed = torch._grouped_mm(tokens[order], self.w, offs=offs).tanh()
            back = torch.empty_like(mixed).index_copy(0, order, mixed)
            return self.out(back.view_as(x)).sum(1)

    torch.manual_seed(0)
    model, data = Experts(), [torch.randn(n, 3, 16) for n in (2, 5, 8)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # none one sample at a time
        found = forgetless.mas(model, data, progress=False)
    assert worst(found, forgetless.reference.mas(model, data)) < 5e-6


def test_what_cannot_be_said_is_left() -> None:
    x = of_samples(3, 5, 4)
    assert REWRITES[torch.matmul](x, torch.randn(7, 1, 4, 2).double()) is NotImplemented  # x is broadcast
    assert REWRITES[torch.einsum]("nti,tio->no", x, torch.randn(5, 4, 2).double()) is not NotImplemented
    assert REWRITES[torch.einsum]("nti,io->no", x, torch.randn(4, 2).double()) is NotImplemented  # t is summed away
    assert REWRITES[torch.bmm](x, torch.randn(3, 4, 2).double()) is NotImplemented  # which has a rule
    assert REWRITES[torch.addmm](torch.randn(2), torch.randn(3, 4), torch.randn(4, 2), beta=2) is NotImplemented
