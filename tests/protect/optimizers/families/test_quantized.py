"""8-bit states are read as the packages write them, and training with them ends at the penalized optimum."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from forgetless import Anchor, ForgetlessError, Importance
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


class Weights(nn.Module):
    """`½ ‖θ − c‖²` from 0, with enough elements for states in 8 bits."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weights = nn.Parameter(torch.zeros(8192))
        self.center = torch.randn(8192, generator=generator)
        self.omega = 0.1 + torch.rand(8192, generator=generator)

    def settled(self, optimizer, how="auto", steps=1500):
        """How far training ends from the optimum of the penalized loss, as the rate falls by four decades."""
        importance, rate = Importance({"weights": self.omega}, 1.0), optimizer.param_groups[0]["lr"]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="how .* scales gradients is not known|Paged optimizers")
            anchor = Anchor(self, importance, 1.0).attach(optimizer, how=how)
            for step in range(steps):
                optimizer.param_groups[0]["lr"] = rate * 10 ** (-4 * max(0.0, step / steps - 0.3) / 0.7)
                self.weights.grad = self.weights.detach() - self.center
                optimizer.step()
        assert anchor.status().applied == steps
        return (self.weights.detach() - self.center / (1 + 2 * self.omega)).abs()


EVERY = [
    "Adam",
    "Adam8bit",
    "AdamW8bit",
    "PagedAdamW8bit",
    "Lion",
    "Lion8bit",
    "PagedLion8bit",
    "RMSprop8bit",
    "SGD8bit",
]


@pytest.mark.parametrize("name", EVERY)
def test_training_with_bitsandbytes_ends_at_the_penalized_optimum(name):
    bnb = pytest.importorskip("bitsandbytes")
    model = Weights()
    options = {"momentum": 0.9} if name == "SGD8bit" else {}
    optimizer = getattr(bnb.optim, name)(model.parameters(), lr=0.02, weight_decay=0, **options)
    assert model.settled(optimizer).max() < 1e-3


def test_a_pull_by_8_bits_ends_near_it_and_says_so():
    bnb = pytest.importorskip("bitsandbytes")
    model = Weights()
    optimizer = bnb.optim.Adam8bit(model.parameters(), lr=0.02)
    with pytest.warns(UserWarning, match="Adam8bit rounds its second moments .* how='gradient'"):
        away = model.settled(optimizer, how="pull")
    assert away.mean() < 0.05


def test_second_moments_in_8_bits_are_those_that_bitsandbytes_reads():
    bnb = pytest.importorskip("bitsandbytes")
    parameter = nn.Parameter(torch.randn(64, 130, generator=torch.Generator().manual_seed(0)))
    optimizer = bnb.optim.Adam8bit([parameter], lr=0.01)
    for _ in range(3):
        parameter.grad = parameter.detach() ** 3
        optimizer.step()
    state = optimizer.state[parameter]
    read = bnb.functional.dequantize_blockwise(
        state["state2"], absmax=state["absmax2"], code=state["qmap2"], blocksize=256
    )
    found = quantized.bitsandbytes_adam(optimizer.param_groups[0], state, parameter)
    torch.testing.assert_close(found.second, read)


def test_an_optimizer_with_a_known_name_and_other_states_is_refused_in_a_sentence():
    class Lion(torch.optim.Optimizer):
        def __init__(self, parameters):
            super().__init__(parameters, {"lr": 0.1, "betas": (0.9, 0.99)})

        @torch.no_grad()
        def step(self, closure=None):
            for each in self.param_groups[0]["params"]:
                self.state[each]["mean"] = each.grad.clone()

    model = Weights()
    optimizer = Lion(model.parameters())
    Anchor(model, Importance({"weights": model.omega}, 1.0), 1.0).attach(optimizer)
    model.weights.grad = torch.ones(8192)
    with pytest.raises(ForgetlessError, match=r"this Lion \(.*\) keeps no 'exp_avg' .* how='gradient'"):
        optimizer.step()
