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


def test_what_cannot_be_said_is_left() -> None:
    x = of_samples(3, 5, 4)
    assert REWRITES[torch.matmul](x, torch.randn(7, 1, 4, 2).double()) is NotImplemented  # x is broadcast
    assert REWRITES[torch.einsum]("nti,tio->no", x, torch.randn(5, 4, 2).double()) is not NotImplemented
    assert REWRITES[torch.einsum]("nti,io->no", x, torch.randn(4, 2).double()) is NotImplemented  # t is summed away
    assert REWRITES[torch.bmm](x, torch.randn(3, 4, 2).double()) is NotImplemented  # which has a rule
    assert REWRITES[torch.addmm](torch.randn(2), torch.randn(3, 4), torch.randn(4, 2), beta=2) is NotImplemented
