"""Every optimizer's form against what the optimizer does, and the points where it balances the gradient."""

from __future__ import annotations

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn, optim

from forgetless.errors import ForgetlessError
from forgetless.measure.importance import Importance
from forgetless.protect.anchor import Anchor
from forgetless.protect.optimizers import forms
from forgetless.protect.optimizers.families import torch_optim
from forgetless.protect.optimizers.response import Response
from optimizers import ENDING, Ending
from quadratics import STRENGTHS, Quadratic


@pytest.fixture
def unchecked():
    """Without the tests' own checks of annotations: thousands of steps are taken here."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


STEADY = [
    (optim.SGD, {}),
    (optim.SGD, {"dampening": 0.3}),
    (optim.SGD, {"momentum": 0.9}),
    (optim.SGD, {"momentum": 0.8, "dampening": 0.3}),
    (optim.SGD, {"momentum": 0.9, "nesterov": True}),
    (optim.SGD, {"momentum": 0.9, "maximize": True}),
    (optim.Adam, {}),
    (optim.Adam, {"amsgrad": True}),
    (optim.Adam, {"betas": (0.5, 0.9), "eps": 1e-3}),
    (optim.AdamW, {"weight_decay": 0.0}),
    (optim.NAdam, {}),
    (optim.NAdam, {"momentum_decay": 0.1, "decoupled_weight_decay": True}),
    (optim.RAdam, {}),
    (optim.RAdam, {"betas": (0.9, 0.95), "decoupled_weight_decay": True}),
    (optim.Adamax, {"eps": 1e-3}),
    (optim.RMSprop, {}),
    (optim.RMSprop, {"momentum": 0.8, "alpha": 0.8}),
    (optim.RMSprop, {"centered": True, "alpha": 0.9}),
    (optim.Adagrad, {}),
    (optim.Adagrad, {"lr_decay": 0.01, "initial_accumulator_value": 0.5}),
    (optim.ASGD, {"lambd": 0.0, "alpha": 0.5}),
]


def named(cases: list[tuple[type, dict[str, object]]]) -> list[object]:
    return [
        pytest.param(cls, options, id=f"{cls.__name__}-{'-'.join(f'{k}={v}' for k, v in options.items())}")
        for cls, options in cases
    ]


def step_under(
    optimizer: optim.Optimizer, parameter: nn.Parameter, gradient: Tensor, steps: int
) -> tuple[Tensor, Tensor]:
    """The last of `steps` moves under a steady gradient, and what the form says it should be."""
    for _ in range(steps):
        before = parameter.detach().clone()
        parameter.grad = gradient.clone()
        optimizer.step()
    sign = 1 if optimizer.param_groups[0].get("maximize") else -1
    return parameter.detach() - before, sign * answer(optimizer, parameter) * gradient


def answer(optimizer: optim.Optimizer, parameter: nn.Parameter) -> float | Tensor:
    """r / D."""
    response = forms.known(optimizer).form(optimizer.param_groups[0], optimizer.state[parameter], parameter)
    divisor = response.divisor()
    return response.rate if divisor is None else response.rate / divisor


@pytest.mark.parametrize("implementation", [{"foreach": False}, {"foreach": True}])
@pytest.mark.parametrize(("cls", "options"), named(STEADY))
def test_the_form_is_the_optimizers_response_to_a_steady_gradient(cls, options, implementation):
    gradient = torch.tensor([2.0, -0.3, 1e-4, -5e2], dtype=torch.float64)
    for steps in (120, 200):  # momentum has filled up; bias corrections are still felt
        parameter = nn.Parameter(torch.zeros(4, dtype=torch.float64))
        optimizer = cls([parameter], lr=0.01, **options, **implementation)
        if options.get("centered"):  # a truly steady gradient has no variance to divide by
            parameter.grad = 3 * gradient
            optimizer.step()
            steps = 25
        moved, expected = step_under(optimizer, parameter, gradient, steps)
        torch.testing.assert_close(moved, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("cls", [optim.Adam, optim.NAdam, optim.RAdam, optim.Adamax, optim.Adagrad])
@given(steps=st.integers(1, 12), beta2=st.floats(0.5, 0.999), lr=st.floats(1e-5, 1.0))
@settings(max_examples=25, deadline=None)
def test_without_momentum_buffers_the_form_is_exact_at_every_step(cls, steps, beta2, lr):
    parameter = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    options = {} if cls is optim.Adagrad else {"betas": (0.9, beta2)}
    optimizer = cls([parameter], lr=lr, **options)
    gradient = torch.tensor([1.0, -20.0, 0.03], dtype=torch.float64)
    moved, expected = step_under(optimizer, parameter, gradient, steps)
    torch.testing.assert_close(moved, expected, rtol=1e-5, atol=1e-14)  # NAdam keeps its products in float32


@pytest.mark.parametrize("cls", [optim.SGD, optim.Adam, optim.AdamW, optim.Adagrad])
def test_fused_implementations_have_the_same_response(cls):
    parameter = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    options = {"momentum": 0.9} if cls is optim.SGD else {"weight_decay": 0.0}
    optimizer = cls([parameter], lr=0.01, fused=True, **options)
    moved, expected = step_under(optimizer, parameter, torch.tensor([1.0, -20.0, 0.03]).double(), 200)
    torch.testing.assert_close(moved, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("steps", [1, 4, 9, 40])
@pytest.mark.parametrize("cls", [optim.Adam, optim.NAdam, optim.RAdam, optim.Adagrad])
def test_counts_kept_on_a_device_give_the_same_numbers(cls, steps, monkeypatch):
    parameter = nn.Parameter(torch.zeros(3))
    optimizer = cls([parameter], lr=0.01)
    _, expected = step_under(optimizer, parameter, torch.tensor([1.0, -20.0, 0.03]), steps)
    monkeypatch.setattr(torch_optim, "number", lambda value: value)  # as it does for a tensor on a device
    response = forms.known(optimizer).form(optimizer.param_groups[0], optimizer.state[parameter], parameter)
    assert isinstance(response.rate, Tensor) or isinstance(response.scale, Tensor)
    found = -answer(optimizer, parameter) * torch.tensor([1.0, -20.0, 0.03])
    # In float32, where 1 − β₂ᵗ and RAdam's differences cancel; torch's own capturable step rounds the same way.
    torch.testing.assert_close(found, expected, rtol=5e-3, atol=0)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("ending", ENDING, ids=str)
def test_it_ends_at_the_penalized_optimum_for_every_strength(ending: Ending) -> None:
    gap = ending.gap()
    if gap is None:
        pytest.skip(f"no {ending} here")
    assert gap < ending.within


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("cls", "options"),
    named(
        [
            (optim.AdamW, {}),
            (optim.AdamW, {"amsgrad": True}),
            # Its momentum goes on rising for as long as momentum_decay says, and the end moves with it.
            (optim.NAdam, {"decoupled_weight_decay": True, "momentum_decay": 1.0}),
            (optim.RAdam, {"decoupled_weight_decay": True}),
        ]
    ),
)
def test_decoupled_decay_ends_where_the_docstring_says(cls, options):
    problem, decay = Quadratic(free=False), 0.1
    optimizer = cls(problem.parameters(), lr=0.1, weight_decay=decay, betas=(0.8, 0.9), **options)
    problem.settle(optimizer, 2400 if cls is optim.NAdam else 1200, decades=8)
    # w (η/r) D: what one unit of decay weighs against one of gradient
    weighed = decay * optimizer.param_groups[0]["lr"] / answer(optimizer, problem.rows)
    theta, pull = problem.rows.detach(), 2 * STRENGTHS[:, None] * problem.omega
    left = problem.gradient() + pull * (theta - problem.start) + weighed * theta
    assert (left / (1 + pull)).abs().max() < 1e-8
    assert (theta - problem.optimum(0.0)).abs().max() > 1e-2  # so it is not the penalized optimum


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("limit", [0.5, 20.0])
def test_clipping_ends_at_the_optimum_for_a_larger_strength(limit):
    """One row, so that its norm is what is clipped: `c g + 2 λ Ω (θ − θ*) = 0`, and how far that is off."""
    problem = Quadratic(free=False)
    strength = torch.tensor(1.0, dtype=torch.float64)
    theta = nn.Parameter(problem.start.clone())
    problem.rows = theta
    optimizer = optim.SGD([theta], lr=0.1, momentum=0.9)
    Anchor(problem, Importance({"rows": problem.omega}, 1.0), float(strength)).attach(optimizer, how="pull")
    for _ in range(1500):
        theta.grad = problem.gradient()
        norm = nn.utils.clip_grad_norm_([theta], limit)
        optimizer.step()
    share = min(1.0, limit / float(norm))

    def optimum(strength: float) -> Tensor:
        pull = 2 * strength * problem.omega
        matrix = problem.curvature + torch.diag(pull)
        return torch.linalg.solve(matrix, problem.curvature @ problem.center + pull * problem.start)

    torch.testing.assert_close(theta.detach(), optimum(float(strength) / share), rtol=0, atol=1e-5)
    off = (theta.detach() - optimum(float(strength))).norm() / (problem.start - optimum(float(strength))).norm()
    if limit == 20.0:  # more than the loss's gradient has there: nothing is clipped, nothing is off
        assert share == 1
        assert off < 1e-8
    else:
        assert share < 0.6
        assert 0.2 < off < 0.9  # a good part of the way that the penalized optimum lies from θ*


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("cls", "options"), [(optim.SGD, {"momentum": 0.9}), (optim.Adam, {"betas": (0.8, 0.99)})])
def test_the_textbook_pull_would_end_elsewhere(cls, options, monkeypatch):
    """The fault that these tests are there to catch: s = 2ηλΩ for everybody."""
    monkeypatch.setitem(torch_optim.FORMS, cls, lambda group, state, parameter: Response(group["lr"]))
    problem = Quadratic(free=False)
    problem.settle(cls(problem.parameters(), lr=0.1, **options), 1200, decades=0 if cls is optim.SGD else 8)
    assert (problem.rows.detach() - problem.optimum(0.0)).abs().max() > 0.1


def test_a_subclass_that_keeps_the_step_is_known_and_one_that_changes_it_is_not():
    class Renamed(optim.AdamW):
        pass

    class Changed(optim.AdamW):
        def step(self, closure=None):
            return super().step(closure)

    parameters = [nn.Parameter(torch.zeros(1))]
    assert forms.known(Renamed(parameters)).form is torch_optim.adam
    assert forms.known(Changed(parameters)).form is forms.decoupled


def test_lbfgs_is_pointed_to_the_loss():
    with pytest.raises(
        ForgetlessError,
        match=r"^LBFGS compares losses inside its step, so the penalty must be in them: "
        r"add anchor\.penalty\(\) to the loss in its closure instead\.$",
    ):
        forms.known(optim.LBFGS([nn.Parameter(torch.zeros(1))]))
