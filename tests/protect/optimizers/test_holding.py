"""The strength that holds a share of the weights or of the movement: against the definition, weight by weight."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn, optim

from forgetless.measure.importance import Importance
from forgetless.protect.anchor import Anchor

MAKERS = {
    "SGD": (lambda p: optim.SGD(p, lr=0.1, momentum=0.9), lambda s, g: torch.full_like(g, 0.1 / (1 - 0.9))),
    "Adam": (
        lambda p: optim.Adam(p, lr=0.01),
        lambda s, g: 0.01 / ((s["exp_avg_sq"] / (1 - 0.999 ** s["step"])).sqrt() + 1e-8),
    ),
}


def stepped(name: str, omega: torch.Tensor, seed: int, steps: int = 3):
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(omega.shape[1], omega.shape[0], bias=False)
    optimizer = MAKERS[name][0](layer.parameters())
    anchor = Anchor(layer, Importance({"weight": omega}, 1.0), 0.0).attach(optimizer)
    for _ in range(steps):
        layer.weight.grad = torch.randn(omega.shape, generator=generator)
        optimizer.step()
    return layer, optimizer, anchor


@given(
    name=st.sampled_from(sorted(MAKERS)),
    share=st.floats(0.05, 1.0),
    steps=st.floats(1.0, 1e5),
    spread=st.floats(0.0, 6.0),
    seed=st.integers(0, 999),
)
@settings(max_examples=40, deadline=None)
def test_that_share_of_the_weights_is_held_over_the_training(name, share, steps, spread, seed):
    generator = torch.Generator().manual_seed(seed)
    omega = torch.exp(spread * torch.randn(12, 9, generator=generator))
    layer, optimizer, anchor = stepped(name, omega, seed)
    found = anchor.strength_holding(share, steps)
    unit = 2 * omega * MAKERS[name][1](optimizer.state[layer.weight], omega)
    held = [float((k * found * steps * unit >= 1).float().mean()) for k in (1.07, 1 / 1.07)]
    assert held[1] - 1e-6 <= share <= held[0] + 1e-6


@given(
    name=st.sampled_from(sorted(MAKERS)),
    share=st.floats(0.05, 1.0),
    steps=st.floats(1.0, 1e5),
    strength=st.sampled_from([0.0, 1e-3, 1.0, 1e3]),
    spread=st.floats(0.0, 4.0),
    seed=st.integers(0, 999),
)
@settings(max_examples=40, deadline=None)
def test_that_share_of_the_movement_is_held_over_the_training(name, share, steps, strength, spread, seed):
    generator = torch.Generator().manual_seed(seed)
    omega = torch.exp(spread * torch.randn(12, 9, generator=generator))
    layer, optimizer, anchor = stepped(name, omega, seed)
    anchor.strength = strength
    found = anchor.strength_holding(share, steps, moved=3)
    unit = 2 * omega * MAKERS[name][1](optimizer.state[layer.weight], omega)
    went = ((layer.weight.detach() - anchor.weights["weight"]).abs() * (1 + strength * 3 * unit)).double()
    held = [float(went[k * found * steps * unit >= 1].sum() / went.sum()) for k in (1.07, 1 / 1.07)]
    assert held[1] - 1e-6 <= share <= held[0] + 1e-6


def test_without_movement_none_of_it_can_be_held():
    layer = nn.Linear(3, 3, bias=False)
    optimizer = optim.SGD(layer.parameters(), lr=0.0)
    anchor = Anchor(layer, Importance({"weight": torch.ones(3, 3)}, 1.0), 0.0).attach(optimizer)
    layer.weight.grad = torch.ones(3, 3)
    optimizer.step()
    optimizer.param_groups[0]["lr"] = 0.1
    assert anchor.strength_holding(0.5, 10, moved=1) is None
    assert anchor.strength_holding(0.5, 10) is not None


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_became_nan_find_no_strength(bad):
    layer, _, anchor = stepped("SGD", torch.ones(4, 4), 0)
    with torch.no_grad():
        layer.weight[1, 2] = bad
    assert anchor.strength_holding(0.5, 10, moved=3) is None


def test_a_weight_that_stood_still_counts_nothing_however_firmly_it_would_be_held():
    """s may be infinite where D is next to 0: 0 · ∞ must not become the whole."""
    layer = nn.Linear(4, 1, bias=False)
    optimizer = optim.Adam(layer.parameters(), lr=1.0, eps=0.0)
    anchor = Anchor(layer, Importance({"weight": torch.tensor([[1e28, 3e28, 2e28, 1e28]])}, 1.0), 0.0).attach(optimizer)
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.tensor([[0.0, 1.0, 1.0, 1.0]])
    optimizer.step()
    with torch.no_grad():
        layer.weight[0, 0] = before[0, 0]  # 0 / 0 in Adam's own step
    expected = 1 / (10 * 2 * 3e28)  # a third of the movement is that of the largest Ω
    assert anchor.strength_holding(0.3, 10, moved=1) == pytest.approx(expected, rel=0.06, abs=0)


def test_of_weights_in_16_bits_the_movement_that_rounding_keeps_back_counts():
    layer = nn.Linear(4, 4, bias=False).bfloat16()
    optimizer = optim.SGD(layer.parameters(), lr=1.0)
    anchor = Anchor(layer, Importance({"weight": torch.ones(4, 4)}, 1.0), 0.0).attach(optimizer)
    layer.weight.grad = torch.full((4, 4), 2.0**-4).bfloat16()
    optimizer.step()
    carry = next(iter(anchor.anchored().values())).carry
    assert carry is not None
    carry.copy_(torch.arange(16.0).reshape(4, 4))
    moves = list(next(iter(anchor._attached)).moves(1.0))
    (distances,) = moves[0][2].distances()
    expected = (layer.weight.detach().float() - anchor.weights["weight"] + carry).abs()
    torch.testing.assert_close(distances, expected)


def test_weights_that_do_not_matter_cannot_be_held():
    omega = torch.zeros(10, 10)
    omega[0] = torch.arange(1.0, 11.0)
    _, _, anchor = stepped("SGD", omega, 0)
    found = anchor.strength_holding(0.5, 100)
    assert found * 100 * 2 * 0.1 / (1 - 0.9) * 1.0 == pytest.approx(1, rel=0.06)  # the least of those that matter
    assert stepped("SGD", torch.zeros(2, 2), 0)[2].strength_holding(0.5, 100) is None


def test_it_is_found_at_the_peak_rate_wherever_the_schedule_stands():
    omega = torch.rand(8, 8, generator=torch.Generator().manual_seed(3))
    layer, optimizer, anchor = stepped("SGD", omega, 0)
    at_peak = anchor.strength_holding(0.3, 50)
    optimizer.param_groups[0]["lr"] = 1e-7
    layer.weight.grad = torch.ones(8, 8)
    optimizer.step()
    assert anchor.strength_holding(0.3, 50) == at_peak
    warming = optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    optim.lr_scheduler.LambdaLR(warming, lambda step: step / 1000)
    assert warming.param_groups[0]["lr"] == 0
    other = Anchor(layer, Importance({"weight": omega}, 1.0), 0.0).attach(warming)
    assert other.strength_holding(0.3, 50) == at_peak


def test_rates_that_are_tensors_have_a_peak_too():
    layer = nn.Linear(3, 3, bias=False)
    rate = torch.tensor(0.5)
    optimizer = optim.SGD(layer.parameters(), lr=rate)
    anchor = Anchor(layer, Importance({"weight": torch.ones(3, 3)}, 1.0), 2.0).attach(optimizer)
    layer.weight.grad = torch.zeros(3, 3)
    optimizer.step()
    rate.fill_(1e-6)
    optimizer.step()
    assert anchor.frozen_fraction() == 1  # s = 2 · 0.5 · 2
