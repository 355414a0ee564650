"""The witness itself: against formulas written out, for nothing else could tell that it is wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from forgetless import ForgetlessError
from forgetless.measure import draws, reference


def linear() -> tuple[nn.Linear, torch.Tensor]:
    torch.manual_seed(0)
    return nn.Linear(4, 3).double(), torch.randn(6, 4).double()


def test_mas_of_one_linear_layer() -> None:
    model, x = linear()
    f = model(x).detach()
    found = reference.mas(model, x).mean()
    assert torch.allclose(found["weight"], 2 * torch.einsum("nj,ni->ji", f.abs(), x.abs()) / 6)
    assert torch.allclose(found["bias"], 2 * f.abs().mean(0))


def test_the_vector_form_of_one_linear_layer() -> None:
    model, x = linear()  # ∂F_o/∂W_ji is x_i where o = j
    assert torch.allclose(reference.mas(model, x, form="vector").mean()["weight"], x.abs().mean(0).expand(3, 4))


def test_the_expected_fisher_information_of_one_linear_layer() -> None:
    model, x = linear()
    p = model(x).softmax(1).detach()  # E (1[c = j] − p_j)² = p_j (1 − p_j)
    expected = torch.einsum("nj,ni->ji", p * (1 - p), x.square()) / 6
    assert torch.allclose(reference.fisher(model, x, labels="expected").mean()["weight"], expected)


def test_the_empirical_fisher_information_of_one_linear_layer() -> None:
    model, x = linear()
    y = torch.tensor([0, 1, 2, 2, 1, 0])
    d = nn.functional.one_hot(y, 3) - model(x).softmax(1).detach()
    expected = torch.einsum("nj,ni->ji", d.square(), x.square()) / 6
    assert torch.allclose(reference.fisher(model, (x, y), labels="empirical").mean()["weight"], expected)


def test_the_output_curvature_of_two_linear_layers() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)).double(), torch.randn(6, 4).double()
    outer = model[1].weight.detach()  # ∂F_o/∂W_ji is V_oj x_i
    exact = reference.output_curvature(model, x, form="exact").mean()
    assert torch.allclose(exact["0.weight"], torch.outer(outer.square().sum(0), x.square().mean(0)))
    assert torch.allclose(exact["1.bias"], torch.ones(3).double())
    signed = draws.signs(7, torch.arange(6), x[:, :3]) @ outer
    sampled = reference.output_curvature(model, x, seed=7).mean()
    assert torch.allclose(sampled["0.weight"], torch.einsum("nj,ni->ji", signed.square(), x.square()) / 6)


@pytest.mark.parametrize("seed", [0, 7, -3, 2**70 + 1])
def test_its_draws_are_those_of_the_estimator_though_it_has_none_of_its_code(seed: int) -> None:
    fast = draws.uniform(seed, np.arange(20), 3)
    assert all(reference._uniform(seed, n, t) == fast[n, t] for n in range(20) for t in range(3))


def test_hebbs_rule() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 3), nn.ReLU()).double(), torch.rand(6, 4).double()
    y = model(x).detach()
    assert torch.allclose(reference.local_mas(model, x).mean()["0.weight"], 2 * torch.einsum("nj,ni->ji", y, x) / 6)


def test_a_network_beyond_the_witness_of_local_mas() -> None:
    with pytest.raises(ForgetlessError, match="MultiheadAttention owns parameters and modules: beyond this reference"):
        reference.local_mas(nn.MultiheadAttention(4, 2), torch.randn(3, 4))


def test_the_path_of_plain_descent_is_its_squared_gradients() -> None:
    model, x = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(x).square().mean().backward()
    assert model.bias.grad is not None
    g = model.bias.grad.clone()
    found = reference.path(model, optimizer, [lambda: model(x).square().mean()], damping=0.5).mean()
    assert torch.allclose(found["bias"], 0.1 * g**2 / ((0.1 * g) ** 2 + 0.5))
