"""`measure` and `Accumulator`, what all estimators share."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import forgetless
from exactness import unchanged
from forgetless import ForgetlessError


@pytest.mark.parametrize("until", [0.0, 1.0, -1.0, "soon"])
@pytest.mark.usefixtures("unchecked")
def test_until_that_is_no_share(until: object) -> None:
    with pytest.raises(ForgetlessError, match="until must be a relative error between 0 and 1"):
        forgetless.mas(nn.Linear(2, 2), torch.randn(3, 2), until=until, progress=False)  # type: ignore[arg-type]


def test_weights_that_are_not_finite_are_refused_and_infinite_buffers_are_not() -> None:
    model, x = nn.Linear(2, 2), torch.randn(3, 2)
    model.register_buffer("bound", torch.tensor([float("-inf")]))
    forgetless.mas(model, x, progress=False)
    with torch.no_grad():
        model.weight[0, 0] = float("nan")
    with unchanged(model), pytest.raises(ForgetlessError, match=r"the weights of 'weight' hold NaN or Inf"):
        forgetless.mas(model, x, progress=False)


def test_a_data_loader_is_read_no_further_than_needed() -> None:
    read = []

    def endless():  # type: ignore[no-untyped-def]
        generator = torch.Generator().manual_seed(0)
        while True:
            read.append(1)
            yield torch.randn(16, 2, generator=generator)

    torch.manual_seed(0)
    found = forgetless.mas(nn.Linear(2, 2), endless(), until=0.3, progress=False)
    assert found.count == 16 * len(read)
