"""In 16 bits a sample in a batch and the same alone differ by rounding; that is no influence of its neighbors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import forgetless
from forgetless import ForgetlessError


class Rounded(nn.Module):
    """Linear, but in a batch the rounding of the result is another than alone: of so many parts in a thousand."""

    def __init__(self, parts: float, coupled: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.parts, self.coupled = nn.Linear(6, 4), parts, coupled

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        if self.coupled:
            return y + y.mean(0)
        return y * (1 + self.parts / 1000) if len(x) > 1 and y.dtype != torch.float64 else y


@pytest.mark.parametrize("parts", [10, 60])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_rounding_is_not_refused(parts: float, dtype: torch.dtype) -> None:
    model, x = Rounded(parts).to(dtype), torch.randn(6, 6)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.float32):
        found = forgetless.mas(model, x.to(dtype), progress=False)
    expected = forgetless.reference.mas(Rounded(0).double(), x.double())
    for name, total in expected.sums.items():
        assert float((found.sums[name] - total).norm() / total.norm()) < 0.2


def test_samples_that_influence_each_other_are_refused_in_16_bits_too() -> None:
    with pytest.raises(ForgetlessError, match="depends on the other samples"):
        forgetless.mas(Rounded(0, coupled=True).bfloat16(), torch.randn(6, 6).bfloat16(), progress=False)


def test_recurrent_layers_are_differentiated_without_cudnn_where_a_sample_is_alone() -> None:
    seen = []

    class Looking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(3, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            seen.append((len(x), torch.backends.cudnn.enabled))
            return self.rnn(x)[0][:, -1]

    forgetless.mas(Looking(), torch.randn(5, 3, 3), progress=False)
    assert {enabled for samples, enabled in seen if samples == 1 and not enabled} == {False}
    assert torch.backends.cudnn.enabled
