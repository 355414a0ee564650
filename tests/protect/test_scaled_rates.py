"""A learning rate for every weight: equal to a group of its own for each, and what is refused."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn, optim

from forgetless.errors import ForgetlessError
from forgetless.measure.importance import Importance
from forgetless.protect.anchor import Anchor
from forgetless.protect.frozen.freeze import FrozenCore
from forgetless.protect.scaled_rates import ScaledRates
from frozen import loss, network, random_masks, same, trained, weights


def importance(model: nn.Module) -> Importance:
    draw = torch.Generator().manual_seed(0)
    return Importance({n: torch.rand(p.shape, generator=draw, dtype=p.dtype) for n, p in model.named_parameters()}, 3.0)


def by_groups(model: nn.Module, make: Callable[[Any], optim.Optimizer], gates: dict[str, torch.Tensor]) -> Any:
    """Every element a parameter and a group of its own, with its own rate."""
    model = copy.deepcopy(model)
    parameters = dict(model.named_parameters())
    rate = make([nn.Parameter(torch.ones(1))]).param_groups[0]["lr"]
    single = {
        name: [nn.Parameter(value.view(1).clone()) for value in each.detach().flatten()]
        for name, each in parameters.items()
    }
    optimizer = make(
        [
            {"params": [each], "lr": rate * float(gates[name].flatten()[place])}
            for name, group in single.items()
            for place, each in enumerate(group)
        ]
    )
    for step in range(4):
        gradients = torch.autograd.grad(loss(model, step), list(parameters.values()))
        for (_, group), gradient in zip(single.items(), gradients, strict=True):
            for each, value in zip(group, gradient.flatten(), strict=True):
                each.grad = value.view(1).clone()
        optimizer.step()
        with torch.no_grad():
            for name, group in single.items():
                parameters[name].copy_(torch.cat([each.detach() for each in group]).view(parameters[name].shape))
    return weights(model)


MAKES: dict[str, Callable[[Any], optim.Optimizer]] = {
    "SGD": partial(optim.SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "AdamW": partial(optim.AdamW, lr=0.1, weight_decay=0.1),
    "Adagrad": partial(optim.Adagrad, lr=0.1),
    "RMSprop": partial(optim.RMSprop, lr=0.1, momentum=0.5),
}


@pytest.mark.parametrize("name", MAKES)
def test_it_is_a_rate_for_every_weight(name):
    model = network()
    found = importance(model)
    mean = sum(float(each.sum()) for each in found.sums.values()) / sum(each.numel() for each in found.sums.values())
    gates = {name: 1 / (1 + 5 * each / mean) for name, each in found.sums.items()}
    expected = by_groups(model, MAKES[name], gates)
    optimizer = MAKES[name](model.parameters())
    scaled = ScaledRates(model, found, kappa=5).attach(optimizer)
    for parameter, gate in zip(model.parameters(), gates.values(), strict=True):
        torch.testing.assert_close(scaled.gates()[parameter], gate)
    trained(model, optimizer, 4)
    for parameter, now in weights(model).items():
        torch.testing.assert_close(now, expected[parameter], rtol=1e-10, atol=1e-12)


def test_a_planted_fault_is_seen(monkeypatch):
    true = torch.lerp
    monkeypatch.setattr(torch, "lerp", lambda start, end, weight: true(start, end, 0.999 * weight))
    with pytest.raises(AssertionError):
        test_it_is_a_rate_for_every_weight("SGD")


def test_zero_changes_nothing_and_remove_ends_it():
    model, plain = network(), network()
    scaled = ScaledRates(model, importance(model), kappa=0)
    first, second = (optim.AdamW(each.parameters(), lr=0.1) for each in (model, plain))
    scaled.attach(first)
    trained(model, first, 3)
    scaled.remove()
    trained(model, first, 1, 3)
    trained(plain, second, 4)
    assert same(weights(model), weights(plain))


def test_beside_a_core_and_an_anchor():
    model = network()
    masks = random_masks(model, 5)
    optimizer = optim.Adam(model.parameters(), lr=0.1)
    core = FrozenCore(model, masks)
    ScaledRates(model, importance(model), 3).attach(optimizer)
    core.attach(optimizer)
    before = weights(model)
    trained(model, optimizer, 3)
    assert same(weights(model), before, masks)
    assert not same(weights(model), before)
    other = network()
    optimizer = optim.Adam(other.parameters(), lr=0.1)
    Anchor(other, importance(other), 1e9).attach(optimizer)
    ScaledRates(other, importance(other), 3).attach(optimizer)
    before = weights(other)
    trained(other, optimizer, 3)
    assert all(torch.allclose(now, before[name], atol=1e-6) for name, now in weights(other).items())


def after_the_core() -> None:
    model = network()
    optimizer = optim.SGD(model.parameters(), lr=1)
    FrozenCore(model, random_masks(model, 5)).attach(optimizer)
    ScaledRates(model, importance(model)).attach(optimizer)


def attached(make: Callable[[Any], optim.Optimizer], **given: Any) -> None:
    model = network()
    ScaledRates(model, importance(model), **given).attach(make(model.parameters()))


def twice() -> None:
    model = network()
    scaled = ScaledRates(model, importance(model))
    scaled.attach(optim.SGD(model.parameters(), lr=1))
    scaled.attach(optim.SGD(model.parameters(), lr=1))


KNOWN = " is not known to take steps in proportion to its learning rate, element by element, so that a rate for every "
BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "negative": (lambda: attached(optim.SGD, kappa=-1), "kappa must be a finite number of 0 or more, not -1."),
    "NaN": (lambda: attached(optim.SGD, kappa=float("nan")), "kappa must be a finite number of 0 or more, not nan."),
    "another model": (
        lambda: ScaledRates(nn.Linear(2, 2), importance(nn.Linear(2, 3))),
        "the importance does not fit the model: it differs in shape: weight (3, 2) instead of (2, 2); "
        "bias (3,) instead of (2,).",
    ),
    "zero": (
        lambda: ScaledRates(nn.Linear(2, 2), Importance({"bias": torch.zeros(2)}, 1)),
        "the importance is 0 everywhere, so that it has no scale.",
    ),
    "Rprop": (
        lambda: attached(optim.Rprop),
        f"Rprop{KNOWN}weight cannot be given to it; use SGD or one of Adam's kind.",
    ),
    "Adafactor": (
        lambda: attached(optim.Adafactor),
        f"Adafactor{KNOWN}weight cannot be given to it; use SGD or one of Adam's kind.",
    ),
    "a strange optimizer": (
        lambda: ScaledRates(network(), importance(network())).attach(optim.SGD(nn.Linear(2, 2).parameters(), lr=1)),
        "the optimizer holds none of the parameters that have an importance.",
    ),
    "after the core": (
        after_the_core,
        "a frozen core is attached to this SGD, which puts others in its parameters' place: attach ScaledRates before "
        "the core.",
    ),
    "twice": (twice, "attached already; remove() it first."),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("what", BAD)
def test_refuses(what):
    act, sentence = BAD[what]
    with pytest.raises(ForgetlessError, match=f"^{re.escape(sentence)}$"):
        act()
