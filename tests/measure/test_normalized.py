"""Normalized importance: its definition, what it does not depend on, and what it bounds."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from forgetless import Anchor, Importance, mas, normalized
from forgetless.errors import ForgetlessError
from forgetless.measure.normalized import mean_squared_norm


def refused(sentence: str):
    return pytest.raises(ForgetlessError, match=f"^{re.escape(sentence)}$")


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 9), nn.ReLU(), nn.Dropout(0.5), nn.Linear(9, 3))


def samples(rows: int = 50) -> torch.Tensor:
    return torch.randn(rows, 5, generator=torch.Generator().manual_seed(1))


def measured(model: nn.Module, **options) -> Importance:
    return mas(model, samples(), progress=False, **options)


def test_it_is_the_formula():
    model = network().train()
    plain, scaled = measured(model), normalized(measured(model), model, samples())
    total = sum(float(omega.double().sum()) for omega in plain.mean().values())
    with torch.no_grad():
        norm = float(model.eval()(samples()).double().square().sum(1).mean())
    for name, omega in plain.mean().items():
        torch.testing.assert_close(scaled.mean()[name], omega * (total / norm**2))
    assert scaled.count == plain.count
    assert scaled.weights == plain.weights
    assert scaled.estimator == "mas, normalized"


@pytest.mark.parametrize("factor", [1e-3, 7.0, 1e4])
def test_the_scale_of_the_outputs_does_not_matter(factor):
    model = network()
    reference = normalized(measured(model), model, samples()).mean()

    def forward(network, batch):
        return factor * network(batch)

    scaled = normalized(measured(model, forward=forward), model, samples(), forward=forward).mean()
    for name, omega in reference.items():
        torch.testing.assert_close(scaled[name], omega, rtol=1e-4, atol=0)


def test_the_unit_of_the_weights_does_not_matter():
    """A network without biases whose weights are all three times as large: a change of 10 % costs the same."""
    costs = []
    for unit in (1, 3):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 9, bias=False), nn.ReLU(), nn.Linear(9, 3, bias=False))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter *= unit
            anchor = Anchor(model, normalized(measured(model), model, samples()), 1.0)
            model[0].weight *= 1.1
        costs.append(anchor.penalty().item())
    assert costs[1] == pytest.approx(costs[0], rel=1e-3)


def test_the_penalty_is_no_less_than_the_squared_relative_bound():
    model = network()
    plain = measured(model)
    norm = mean_squared_norm(model, samples())
    anchor = Anchor(model, normalized(plain, model, samples()), 1.0)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        bound = 0.0
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(before[name] + torch.randn(parameter.shape, generator=generator))
                bound += float((plain.mean()[name] * (parameter - before[name]).abs()).sum())
        assert anchor.penalty().item() >= (bound / norm) ** 2 * (1 - 1e-5)


def test_the_mean_is_over_the_first_samples_and_leaves_the_model_as_found():
    model = network().train()
    with torch.no_grad():
        model.eval()
        expected = float(model(samples()[:40]).square().sum(1).mean())
        model.train()
    found = mean_squared_norm(model, [samples()[:33], samples()[33:]], samples=40)
    assert found == pytest.approx(expected, rel=1e-5)
    assert model.training


def test_bad_input():
    model = network()
    importance = measured(model)
    with refused("the importance is normalized already."):
        normalized(normalized(importance, model, samples()), model, samples())
    with refused("the model's output is 0 on all of the data, so that it has no scale."):
        normalized(importance, model, samples(), forward=lambda network, batch: 0 * network(batch))
    with refused("there is no data to take the scale of the output from."):
        normalized(importance, model, [])
    with refused("the importance is 0 everywhere, so that it has no scale."):
        normalized(Importance({"w": torch.zeros(3)}, 1), model, samples())
    with refused("the model's output holds NaN or Inf, so that it has no scale."):
        normalized(importance, model, samples(), forward=lambda network, batch: network(batch) / 0)
    with refused("an importance by 'mas, normalized' cannot be merged with one by 'mas'."):
        normalized(importance, model, samples()).merge(importance)
