"""The information of a task that was learned, against its definitions: of logits, and of outputs of any other kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from exactness import errors, unchanged, worst
from forgetless.learn.families.information import information
from forgetless.learn.methods import create
from forgetless.learn.network import Network
from forgetless.learn.optimizers import adam
from forgetless.learn.recipe import Recipe
from forgetless.learn.task import Task
from forgetless.learn.train import learn
from forgetless.measure import reference
from objectives import retrieval_heads, retrieval_network, retrieval_stream, token_network, token_stream
from streams import network, stream


def classes() -> tuple[Network, Task]:
    return network(), stream(1)[0]


def vectors() -> tuple[Network, Task]:
    return retrieval_network(), retrieval_stream(1)[0]


def vectors_of_a_task() -> tuple[Network, Task]:
    return retrieval_heads(), retrieval_stream(1)[0]


def tokens() -> tuple[Network, Task]:
    return token_network(), token_stream(1)[0]


def expected(model: Network, task: Task, few: bool) -> Any:
    """By the definition, one sample at a time."""
    options: dict[str, Any] = {"forward": lambda net, inputs: net(inputs, task.name), "exclude": model.unshared}
    if task.objective.logits:
        return reference.fisher(model, task.inputs(), labels="expected" if few else "sampled", **options)
    return reference.output_curvature(model, task.inputs(), form="exact" if few else "sampled", **options)


@pytest.mark.parametrize("few", [True, False])
@pytest.mark.parametrize(
    ("build", "name"),
    [
        (classes, "fisher, {} labels"),
        (tokens, "fisher, {} labels"),
        (vectors, "output curvature, {}"),
        (vectors_of_a_task, "output curvature, {}"),
    ],
)
def test_equals_its_definition(build: Callable[[], tuple[Network, Task]], name: str, few: bool) -> None:
    model, task = build()
    model.grow(task.name, task.objective.outputs)
    model = model.double().eval()
    part = tuple(each.double() if each.is_floating_point() else each for each in task.train) if build != tokens else {}
    task = Task(task.name, part or task.train, task.test, task.objective)
    width = task.objective.outputs
    with unchanged(model):
        found = information(model, task, width if few else width - 1)
    assert worst(found, expected(model, task, few)) < 1e-10, errors(found, expected(model, task, few))
    kind = ("expected" if few else "sampled") if task.objective.logits else ("exact" if few else "sampled")
    assert found.estimator == name.format(kind)
    assert any("head" in name or "shared" in name for name in found.sums) == (not model.unshared)


def test_the_targets_play_no_part() -> None:
    model, task = vectors()
    model.grow(task.name, task.objective.outputs)
    other = Task(task.name, (task.train[0], task.train[1].flip(0)), task.test, task.objective)
    assert worst(information(model, task, 10), information(model, other, 10)) == 0


def test_it_is_what_ewc_keeps_of_a_regression() -> None:
    model, tasks, method = retrieval_network(), retrieval_stream(1), create("ewc", 0.5)
    learn(model, tasks, method, Recipe(0.01, 2, 8, adam), seed=1)
    omega = expected(model.eval(), tasks[0], True).mean()
    kept = method.state()
    for name, value in omega.items():
        assert torch.allclose(kept[f"anchor/importance.{name}"], value, rtol=1e-4, atol=1e-6 * float(value.max()))
