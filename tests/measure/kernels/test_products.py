"""Products said as `F.linear` give what they gave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

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
    ],
)
def test_the_same_numbers(function: Callable[..., Tensor], make: Callable[[], Any]) -> None:
    torch.manual_seed(0)
    given = make()
    torch.testing.assert_close(REWRITES[function](*given), function(*given))


def test_what_cannot_be_said_is_left() -> None:
    x, matrices = of_samples(3, 5, 4), torch.randn(3, 4, 2).double()
    assert REWRITES[torch.matmul](x, matrices) is NotImplemented  # a matrix a sample
    assert REWRITES[torch.einsum]("nti,tio->nto", x, torch.randn(5, 4, 2).double()) is NotImplemented
    assert REWRITES[torch.addmm](torch.randn(2), torch.randn(3, 4), torch.randn(4, 2), beta=2) is NotImplemented
