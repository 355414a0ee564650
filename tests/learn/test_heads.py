from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from forgetless.errors import ForgetlessError
from streams import INPUTS, network


def test_a_head_per_task_on_one_backbone() -> None:
    model = network()
    model.grow("first", 3)
    model.grow("second", 5)
    inputs = torch.randn(4, INPUTS)
    features = model.backbone(inputs)
    assert torch.equal(model(inputs, "first"), model.head("first")(features))
    assert model(inputs, "second").shape == (4, 5)


@given(st.lists(st.text(max_size=12), min_size=1, max_size=6, unique=True))
def test_any_name_is_a_task_of_its_own(names: list[str]) -> None:
    model = network()
    for classes, name in enumerate(names, 1):
        model.grow(name, classes)
    assert [model.head(name).out_features for name in names] == list(range(1, len(names) + 1))
    assert all(name.startswith(("backbone.", "heads.")) for name, _ in model.named_parameters())


@pytest.mark.parametrize("name", ["a.b", "", "keys", "training", "type", "_modules", "a%2Eb", "keys%", "..", "é/ü"])
def test_names_that_modules_do_not_take(name: str) -> None:
    model = network()
    model.grow(name, 2)
    model.grow(name + " too", 3)
    clone = network()
    clone.grow(name, 2)
    clone.grow(name + " too", 3)
    clone.load_state_dict(model.state_dict())
    assert torch.equal(clone.head(name).weight, model.head(name).weight)


def test_a_head_has_the_device_and_dtype_of_the_backbone() -> None:
    model = network().double()
    model.grow("t", 2)
    assert model.head("t").weight.dtype == torch.float64


def test_heads_that_are_not_there_or_there_twice() -> None:
    model = network()
    with pytest.raises(ForgetlessError, match=r"^task 'x' has no head; the heads are none\.$"):
        model.head("x")
    model.grow("x", 2)
    with pytest.raises(ForgetlessError, match=r"^task 'x' has a head already\.$"):
        model.grow("x", 2)
    with pytest.raises(ForgetlessError, match=r"^the head of task 'y' needs at least one class, not 0\.$"):
        model.grow("y", 0)
    with pytest.raises(ForgetlessError, match=r"^task 'y' has no head; the heads are 'x'\.$"):
        model(torch.randn(1, INPUTS), "y")


def test_one_head_for_all_tasks() -> None:
    model = network(scenario="domain")
    model.grow("first", 3)
    before = model.head("first").weight
    model.grow("second", 3)
    assert model.head("second").weight is before
    assert (model.first("first"), model.first("second"), model.tasks) == (0, 0, ("first", "second"))
    assert model.unshared == ()
    with pytest.raises(ForgetlessError, match=r"^all tasks share a head of 3 classes, and task 'x' has 2\.$"):
        model.grow("x", 2)
    with pytest.raises(ForgetlessError, match=r"^task 'second' has a head already\.$"):
        model.grow("second", 3)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_one_head_that_grows_and_keeps_its_rows(classes: list[int]) -> None:
    model = network(scenario="class")
    inputs, answers = torch.randn(4, INPUTS), torch.zeros(4, 0)
    for number, count in enumerate(classes):
        model.grow(str(number), count)
        assert model.first(str(number)) == sum(classes[:number])
        logits = model(inputs, "0")
        assert logits.shape == (4, sum(classes[: number + 1]))
        assert torch.allclose(logits[:, : answers.shape[1]], answers, atol=1e-6)
        answers = logits.detach()
    assert model.is_trained == (len(classes) > 1)


def test_a_head_per_task_is_of_no_other() -> None:
    model = network()
    model.grow("first", 3)
    model.grow("second", 2)
    assert (model.first("first"), model.first("second"), model.unshared) == (0, 0, ("heads",))


def test_a_scenario_that_is_not_there() -> None:
    with pytest.raises(ForgetlessError, match=r"^a scenario is 'task', 'domain' or 'class', not 'tasks'\.$"):
        network(scenario="tasks")


def test_a_frozen_backbone_computes_the_same_whatever_happens() -> None:
    model = network(noisy=True)
    model.grow("t", 3)
    model.train()
    model.freeze()
    inputs = torch.randn(8, INPUTS)
    before = model.backbone(inputs)
    model.train()
    assert torch.equal(model.backbone(inputs), before)
    assert not any(parameter.requires_grad for parameter in model.backbone.parameters())
    assert all(parameter.requires_grad for parameter in model.heads.parameters())
    model.freeze(False)
    assert model.backbone.training
    assert all(parameter.requires_grad for parameter in model.backbone.parameters())
