"""8-bit Adam states are read as the packages write them; their layouts are stated again here, for CPUs lack them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from forgetless.protect.optimizers import forms
from forgetless.protect.optimizers.families import quantized


def quantized_state(second: torch.Tensor, block: int) -> dict[str, object]:
    """As bitsandbytes 0.45 keeps it (`functional.quantize_blockwise`): a table of 256 values, a scale a block."""
    table = torch.linspace(0, 1, 256) ** 2
    flat = second.flatten()
    count = -(-flat.numel() // block)
    padded = torch.zeros(count * block)
    padded[: flat.numel()] = flat
    scales = padded.view(count, block).amax(1).clamp_min(1e-12)
    codes = ((padded.view(count, block) / scales[:, None])[..., None] - table).abs().argmin(-1).flatten()
    return {
        "state2": codes[: flat.numel()].to(torch.uint8).view(second.shape),
        "qmap2": table,
        "absmax2": scales,
        "step": 50,
    }


@pytest.mark.parametrize("block", [256, 2048])
def test_the_second_moments_of_bitsandbytes_are_read_from_8_bits(block):
    second = torch.rand(7, 700, generator=torch.Generator().manual_seed(0)) ** 2
    group = {"lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-8}
    response = quantized.bitsandbytes_adam(group, quantized_state(second, block), nn.Parameter(torch.zeros(7, 700)))
    torch.testing.assert_close(response.second, second, rtol=0, atol=5e-3)
    assert response.scale == pytest.approx(1 / (1 - 0.99**50))


def test_a_small_parameter_is_kept_in_32_bits_there():
    second = torch.rand(5)
    group = {"lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-8}
    found = quantized.bitsandbytes_adam(group, {"state2": second, "step": 3}, nn.Parameter(torch.zeros(5)))
    assert found.second is second


class Packed:
    def __init__(self, values):
        self.values = values

    def dequantize(self):
        return self.values


def test_torchaos_states_are_unpacked():
    second = torch.rand(5)
    group = {"lr": torch.tensor(0.1), "betas": (0.9, 0.99), "eps": 1e-8, "amsgrad": False}
    state = {"exp_avg_sq": Packed(second), "step": torch.tensor(3.0)}
    assert quantized.torchao_adam(group, state, nn.Parameter(torch.zeros(5))).second is second


def test_they_are_recognized_by_their_packages():
    class Adam8bit(torch.optim.Optimizer):
        optimizer_name = "adam"

        def __init__(self, parameters):
            super().__init__(parameters, {"lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-8})

        def step(self, closure=None):
            pass

    parameters = [nn.Parameter(torch.zeros(1))]
    assert "not known here" in forms.known(Adam8bit(parameters)).caution
    Adam8bit.__module__ = "bitsandbytes.optim.adam"
    assert forms.known(Adam8bit(parameters)).form is quantized.bitsandbytes_adam
    Adam8bit.__module__ = "torchao.optim.adam"
    assert forms.known(Adam8bit(parameters)).form is quantized.torchao_adam
