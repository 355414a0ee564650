from __future__ import annotations

import functools
import itertools
import math
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from forgetless.errors import ForgetlessError
from forgetless.learn.optimizers import adam, described, sgd
from forgetless.learn.recipe import Recipe


@pytest.mark.parametrize(
    ("field", "value", "must"),
    [
        ("lr", 0.0, "a positive number"),
        ("lr", math.inf, "a positive number"),
        ("lr", math.nan, "a positive number"),
        ("epochs", 0, "at least 1"),
        ("batch_size", 0, "at least 1"),
        ("clip", 0.0, "positive or None"),
        ("schedule", "linear", "'constant' or 'cosine'"),
    ],
)
def test_a_recipe_that_makes_no_sense(field: str, value: Any, must: str) -> None:
    with pytest.raises(ForgetlessError) as caught:
        Recipe(**{"lr": 0.1, "epochs": 1, "batch_size": 1, field: value})
    assert str(caught.value) == f"the recipe's {field} must be {must}, not {value!r}."


@given(st.integers(1, 500), st.floats(1e-6, 10))
def test_the_cosine_falls_from_lr_towards_zero(steps: int, lr: float) -> None:
    recipe = Recipe(lr, 1, 1, schedule="cosine")
    rates = [recipe.rate(step, steps) for step in range(steps)]
    assert rates[0] == lr
    assert all(late < early for early, late in itertools.pairwise(rates))
    assert rates[-1] > 0
    assert math.isclose(recipe.rate(steps, 2 * steps), lr / 2)


def test_the_constant_rate() -> None:
    assert {Recipe(0.3, 1, 1).rate(step, 10) for step in range(10)} == {0.3}


def test_a_cosine_needs_the_number_of_steps() -> None:
    assert Recipe(0.3, 1, 1).rate(7, None) == 0.3
    with pytest.raises(ForgetlessError, match=r"^the schedule 'cosine' needs to know how many batches a task has; "):
        Recipe(0.3, 1, 1, schedule="cosine").rate(0, None)


# ---- optimizers


def test_a_recipe_is_text_in_a_configuration_and_survives_pickling() -> None:
    recipe = Recipe(0.1, 2, 3, functools.partial(torch.optim.AdamW, weight_decay=0.1, betas=(0.8, 0.9)), clip=1.0)
    assert recipe.settings() == {
        "lr": 0.1,
        "epochs": 2,
        "batch_size": 3,
        "optimizer": "torch.optim.adamw.AdamW(betas=(0.8, 0.9), weight_decay=0.1)",
        "clip": 1.0,
        "schedule": "constant",
        "warm_start": True,
        "freeze_batchnorm": False,
    }
    assert pickle.loads(pickle.dumps(recipe)).settings() == recipe.settings()


def test_the_optimizers_of_old_are_what_they_were() -> None:
    weights = nn.Linear(2, 2)
    momentum = sgd(weights.parameters(), lr=0.1)
    assert isinstance(momentum, torch.optim.SGD)
    assert (momentum.defaults["lr"], momentum.defaults["momentum"], momentum.defaults["weight_decay"]) == (0.1, 0.9, 0)
    fused = adam(weights.parameters(), lr=0.1, weight_decay=0.2)
    assert isinstance(fused, torch.optim.Adam)
    assert (fused.defaults["fused"], fused.defaults["weight_decay"]) == (True, 0.2)
    assert adam(weights.to("meta").parameters(), lr=0.1).defaults["fused"] is False


def test_partials_of_partials_are_one() -> None:
    inner = functools.partial(sgd, momentum=0.5)
    assert described(functools.partial(inner, momentum=0.1)) == "forgetless.learn.optimizers.sgd(momentum=0.1)"


def not_an_optimizer(parameters: object, lr: float) -> float:
    return lr


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("optimizer", "sentence"),
    [
        ("adam", "an optimizer is a class, a function of a module or a functools.partial of one, not 'adam'."),
        (lambda parameters, lr: sgd(parameters, lr), "an optimizer is a class, a function of a module or a"),
        (functools.partial(sgd, []), "an optimizer's settings are given by keyword: "),
        (
            functools.partial(sgd, momentum=-1.0),
            "the optimizer forgetless.learn.optimizers.sgd(momentum=-1.0) cannot be made: Invalid momentum",
        ),
        (
            functools.partial(torch.optim.Adam, beta=0.9),
            "the optimizer torch.optim.adam.Adam(beta=0.9) cannot be made: ",
        ),
        (not_an_optimizer, f"the optimizer {__name__}.not_an_optimizer() gives a float, not a torch.optim.Optimizer."),
    ],
)
def test_optimizers_that_cannot_be_made_or_named(optimizer: Any, sentence: str) -> None:
    with pytest.raises(ForgetlessError) as caught:
        Recipe(0.1, 1, 1, optimizer)
    assert str(caught.value).startswith(sentence)
