"""The budget: its sum against a slow one, kept whatever the optimizer does, with as little strength as that takes."""

from __future__ import annotations

import re
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn, optim

from forgetless import Anchor, DriftBudget, mas
from forgetless.errors import ForgetlessError
from forgetless.measure.importance import Importance
from forgetless.protect.anchored_parameter import AnchoredParameter
from forgetless.protect.strength.dial import bound, shrink


def refused(sentence: str):
    return pytest.raises(ForgetlessError, match=f"^{re.escape(sentence)}$")


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 3))


def samples(rows: int = 40, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, 6, generator=torch.Generator().manual_seed(seed))


def spent(model: nn.Module, importance: Importance, before: list[torch.Tensor]) -> float:
    """`Σ Ω |θ − θ*|`, in double precision."""
    triples = zip(model.parameters(), importance.mean().values(), before, strict=True)
    return float(sum((omega.double() * (p.detach().double() - old).abs()).sum() for p, omega, old in triples))


def train(model: nn.Module, optimizer: optim.Optimizer, steps: int, after=lambda: None) -> float:
    generator = torch.Generator().manual_seed(4)
    for _ in range(steps):
        inputs = torch.randn(16, 6, generator=generator)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), (inputs[:, 0] > 0).long())
        loss.backward()
        optimizer.step()
        after()
    return float(loss.detach())


def parts(model: nn.Module) -> tuple[Importance, list[torch.Tensor]]:
    inputs = samples().to(next(model.parameters()).dtype)
    return mas(model, inputs, progress=False), [p.detach().double().clone() for p in model.parameters()]


@given(
    rows=st.integers(0, 5),
    columns=st.integers(1, 4),
    grown=st.integers(-1, 2),
    share=st.floats(0, 1),
    compact=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_bound_and_going_back_are_their_definitions_in_the_corner_in_common(
    rows, columns, grown, share, compact, seed
):
    generator = torch.Generator().manual_seed(seed)
    parameter = nn.Parameter(torch.randn(max(0, rows + grown), columns, generator=generator))
    target, omega = (torch.randn(rows, columns, generator=generator) for _ in range(2))
    omega = omega.abs().bfloat16() if compact else omega.abs()
    anchored_parameters = {parameter: AnchoredParameter("w", target, omega)}
    common = min(rows, rows + grown)
    before = parameter.detach().clone()
    moved = before[:common] - target[:common]
    assert bound(anchored_parameters) == pytest.approx(
        float((omega[:common].double() * moved.abs()).sum()), rel=1e-5, abs=1e-6
    )
    shrink(anchored_parameters, share)
    torch.testing.assert_close(parameter[:common].detach(), target[:common] + share * moved)
    assert torch.equal(parameter[common:], before[common:])
    if share == 0:
        assert torch.equal(parameter[:common], target[:common])
    assert bound(anchored_parameters) == pytest.approx(
        share * float((omega[:common].double() * moved.abs()).sum()), rel=1e-4, abs=1e-5
    )


@pytest.mark.filterwarnings("ignore:after .* of the budget was spent")
@settings(max_examples=8)
@given(
    share=st.floats(0.01, 3),
    start=st.sampled_from([1e-6, 1.0, 1e3]),
    kind=st.sampled_from([lambda p: optim.SGD(p, lr=0.1, momentum=0.9), lambda p: optim.Adam(p, lr=1e-2)]),
)
def test_the_budget_is_kept_after_every_look(share, start, kind):
    model = network()
    importance, before = parts(model)
    cap = share * float(model(samples()).square().sum(1).mean().detach())
    budget = DriftBudget(cap, start=start, every=1)
    optimizer = kind(model.parameters())
    Anchor(model, importance, budget).attach(optimizer)
    sums: list[float] = []
    train(model, optimizer, 25, lambda: sums.append(spent(model, importance, before)))
    assert max(sums) <= cap * (1 + 1e-4)
    assert [seen.spent for seen in budget.history] == pytest.approx([each / cap for each in sums], rel=1e-3, abs=1e-6)
    assert [seen.step for seen in budget.history] == list(range(1, 26))


def test_the_bound_is_no_less_than_the_mean_change_of_the_squared_norm_to_first_order():
    model = network().double()
    importance, before = parts(model)
    inputs = samples()
    old = model(inputs.double()).square().sum(1).detach()
    generator = torch.Generator().manual_seed(8)
    for _ in range(20):
        with torch.no_grad():
            for parameter, was in zip(model.parameters(), before, strict=True):
                parameter.copy_(was + 1e-6 * torch.randn(was.shape, generator=generator, dtype=torch.float64))
        change = (model(inputs.double()).square().sum(1).detach() - old).abs().mean()
        assert change <= spent(model, importance, before) * (1 + 1e-4)


def test_a_strength_that_is_not_needed_falls_and_one_that_is_rises():
    model = network()
    importance, _ = parts(model)
    wide, optimizer = DriftBudget(1e9, start=100.0), optim.SGD(model.parameters(), lr=0.05)
    anchor = Anchor(model, importance, wide).attach(optimizer)
    train(model, optimizer, 100)
    assert anchor.strength == pytest.approx(100 * 0.8**10)
    model = network()
    tight, optimizer = DriftBudget(0.05, start=1e-6, every=1), optim.SGD(model.parameters(), lr=0.05)
    anchor = Anchor(model, importance, tight).attach(optimizer)
    with pytest.warns(UserWarning, match="the weights went back into it, and the strength rose"):
        train(model, optimizer, 100)
    assert anchor.strength > 0.01
    returned = [seen.returned < 1 for seen in tight.history]
    assert any(returned[:20])
    assert not any(returned[-20:])  # by then the strength keeps it, not the going back


def test_it_is_said_once_that_weights_went_back():
    model = network()
    importance, _ = parts(model)
    optimizer = optim.SGD(model.parameters(), lr=0.3)
    Anchor(model, importance, DriftBudget(1e-3, start=1e-6, every=1)).attach(optimizer)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(model, optimizer, 8)
    assert len([each for each in caught if "of the budget was spent" in str(each.message)]) == 1


def test_settling_keeps_the_budget_between_two_looks():
    model = network()
    importance, before = parts(model)
    budget, optimizer = DriftBudget(0.05, start=1e-6, every=50), optim.SGD(model.parameters(), lr=0.3)
    anchor = Anchor(model, importance, budget).attach(optimizer)
    train(model, optimizer, 20)
    anchor.detach()
    assert spent(model, importance, before) > 0.05
    with pytest.warns(UserWarning, match="the weights went back into it"):
        assert budget.settle() == 1
    assert spent(model, importance, before) == pytest.approx(0.05, rel=1e-3)
    assert budget.settle() == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("how", ["pull", "gradient"])
def test_plasticity_is_known_where_something_pulls(how):
    model = network()
    importance, _ = parts(model)
    seen = []
    budget, optimizer = DriftBudget(1.0, every=1, on_spending=seen.append), optim.SGD(model.parameters(), lr=1e-3)
    anchor = Anchor(model, importance, budget).attach(optimizer, how)
    train(model, optimizer, 2)
    assert seen == budget.history
    assert seen[-1].plasticity == (1 - anchor.frozen_fraction() if how == "pull" else None)


def test_nothing_to_protect_costs_nothing():
    model = network()
    budget, optimizer = DriftBudget(1.0, every=1), optim.SGD(model.parameters(), lr=1e-3)
    Anchor(model, None, budget).attach(optimizer)
    train(model, optimizer, 2)
    assert budget.history == []


def test_bad_input():
    for value in (0.0, -1.0, float("nan"), float("inf")):
        with refused(f"the cap must be a finite number above 0, not {value!r}."):
            DriftBudget(value)
        with refused(f"start must be a finite number above 0, not {value!r}."):
            DriftBudget(1.0, start=value)
    with refused("every must be a number of steps of 1 or more, not 0."):
        DriftBudget(1.0, every=0)
    with refused("settle() is for after training: attach the anchor and take a step first."):
        DriftBudget(1.0).settle()
