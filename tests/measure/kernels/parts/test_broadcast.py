"""Parameters used elementwise: spread to a copy a row, and summed per sample."""

from __future__ import annotations

import pytest
import torch

from forgetless.measure.kernels import Samples, spread, spread_term

OF = torch.tensor([1, 0, 1, 1])


@pytest.mark.parametrize(
    ("samples", "numbers"),
    [
        (Samples(2), [0, 0, 1, 1]),
        (Samples(2, inner=True), [0, 1, 0, 1]),
        (Samples(2, of=OF), OF.tolist()),
        (Samples(4), [0, 1, 2, 3]),
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", [(3,), (1, 3), (1, 1), ()], ids=str)
def test_the_gradient_of_a_spread_is_summed_within_a_sample(
    shape: tuple[int, ...], samples: Samples, numbers: list[int]
) -> None:
    torch.manual_seed(0)
    value, x = torch.randn(shape).double(), torch.randn(4, 3).double()
    copies = spread(value, 2, 4, samples)
    assert copies is not None
    copies = copies.clone().requires_grad_()
    (copies * x).sin().sum().backward()
    assert copies.grad is not None
    expected = torch.zeros(shape).double()
    for n in range(samples.count):
        one = value.clone().requires_grad_()
        (one * x[torch.tensor(numbers) == n]).sin().sum().backward()
        expected += one.grad.abs()
    torch.testing.assert_close(spread_term(copies.grad, value, samples).modulus_sum(1), expected)


def test_what_cannot_be_spread() -> None:
    assert spread(torch.zeros(4, 3), 1, 4, Samples(2)) is None
    assert spread(torch.zeros(3), 2, 5, Samples(2)) is None
    assert spread(torch.zeros(4, 3), 2, 4, Samples(2, of=OF)) is None  # a row a token, of samples in another order
