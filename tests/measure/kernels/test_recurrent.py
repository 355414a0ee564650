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


@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_packed_sequences_give_the_same_numbers(kind: str, layers: int, bidirectional: bool, projected: bool) -> None:
    torch.manual_seed(0)
    size = 2 if projected and kind == "LSTM" else 0
    options = {"proj_size": size} if size else {}
    layer = getattr(nn, kind)(3, 4, layers, bidirectional=bidirectional, **options).double()
    sizes = torch.tensor([3, 3, 2, 1, 1])
    first = torch.randn(layers * (1 + bidirectional), 3, size or 4).double()
    function = {"LSTM": torch.lstm, "GRU": torch.gru, "RNN": torch.rnn_tanh}[kind]
    states = [first, torch.randn(len(first), 3, 4).double()] if kind == "LSTM" else first
    given = (torch.randn(10, 3).double(), sizes, states, layer._flat_weights, True, layers, 0.0, False, bidirectional)
    for found, expected in zip(REWRITES[function](*given), function(*given), strict=True):
        torch.testing.assert_close(found, expected)


def test_a_first_state_belongs_to_the_samples_whatever_their_values() -> None:
    layer = nn.GRUCell(3, 4)
    x = torch.full((2, 3), torch.nan)
    zeros = torch.zeros(2, 4)
    found = REWRITES[torch.gru_cell](x, zeros, *layer.parameters())
    torch.testing.assert_close(found, torch.gru_cell(x, zeros, *layer.parameters()), equal_nan=True)
