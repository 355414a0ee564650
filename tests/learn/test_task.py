from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from forgetless.errors import ForgetlessError
from forgetless.learn.task import Recipe, Task

GOOD = (torch.zeros(4, 2), torch.tensor([0, 1, 0, 1]))


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ((torch.zeros(4, 2), torch.zeros(4)), "needs int64 labels [N], not float32 [4]."),
        ((torch.zeros(4, 2), torch.zeros(4, 1).long()), "needs int64 labels [N], not int64 [4, 1]."),
        ((torch.zeros(5, 2), GOOD[1]), "has 5 inputs and 4 labels."),
        ((torch.zeros(0, 2), torch.zeros(0).long()), "is empty."),
        ((torch.zeros(4, 2), torch.tensor([0, 2, 0, 1])), "has labels 0…2 for 2 classes."),
        ((torch.zeros(4, 2), torch.tensor([0, -1, 0, 1])), "has labels -1…1 for 2 classes."),
    ],
)
@pytest.mark.parametrize("part", ["train", "test"])
def test_a_task_whose_parts_do_not_fit(part: str, bad: tuple[torch.Tensor, torch.Tensor], sentence: str) -> None:
    parts = {"train": GOOD, "test": GOOD, part: bad}
    with pytest.raises(ForgetlessError) as caught:
        Task("t", ("a", "b"), **parts)
    assert str(caught.value) == f"the {part} part of task 't' {sentence}"


@pytest.mark.parametrize(
    ("field", "value", "must"),
    [
        ("lr", 0.0, "a positive number"),
        ("lr", math.inf, "a positive number"),
        ("lr", math.nan, "a positive number"),
        ("epochs", 0, "at least 1"),
        ("batch_size", 0, "at least 1"),
        ("optimizer", "lion", "'sgd' or 'adam'"),
        ("momentum", 1.0, "in [0, 1)"),
        ("momentum", -0.1, "in [0, 1)"),
        ("weight_decay", -1.0, "zero or positive"),
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
