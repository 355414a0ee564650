"""Recurrent layers said step by step give what torch's fused ones give."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from forgetless.measure.kernels.recurrent import REWRITES


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_the_same_numbers(kind: str, layers: int, bidirectional: bool) -> None:
    torch.manual_seed(0)
    layer = getattr(nn, kind)(3, 4, layers, batch_first=True, bidirectional=bidirectional).double()
    x, first = torch.randn(2, 5, 3).double(), torch.randn(layers * (1 + bidirectional), 2, 4).double()
    function = {"LSTM": torch.lstm, "GRU": torch.gru, "RNN": torch.rnn_tanh}[kind]
    states = [first, first * 2] if kind == "LSTM" else first
    given = (x, states, layer._flat_weights, True, layers, 0.0, False, bidirectional, True)
    for found, expected in zip(REWRITES[function](*given), function(*given), strict=True):
        torch.testing.assert_close(found, expected)


def test_packed_sequences_are_left() -> None:
    layer = nn.GRU(3, 4)
    packed = (torch.randn(5, 3), torch.tensor([3, 2]), torch.zeros(1, 3, 4), layer._flat_weights)
    assert REWRITES[torch.gru](*packed, True, 1, 0.0, False, False) is NotImplemented
