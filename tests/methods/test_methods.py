"""The contract every method keeps, over the registry."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from forgetless import metrics
from forgetless.errors import ForgetlessError
from forgetless.heads import MultiHead
from forgetless.methods import METHODS, create
from forgetless.task import Method, Recipe
from forgetless.train import Outcome, Progress, learn
from streams import network, same, stream

STREAM = stream(3)
RECIPE = Recipe(lr=0.1, epochs=8, batch_size=24)
STEPS = 16
STRONG = [name for name in METHODS if create(name).strength is not None]
HOARDERS = {"joint"}  # keep all data

# Where the default would show nothing on a stream as small as this.
STRENGTHS = {"l2sp": 1.0, "si": 100.0, "lwf": 2.0}
SETTINGS = {"er": {"memory": 24}}


def make(name: str, strength: float | None = None) -> Method:
    method = create(name, STRENGTHS.get(name) if strength is None else strength)
    return dataclasses.replace(method, **SETTINGS.get(name, {}))


def run(name: str, strength: float | None = None, *, noisy: bool = False, **more: Any) -> tuple[MultiHead, Outcome]:
    model = network(noisy=noisy)
    return model, learn(model, STREAM, make(name, strength), RECIPE, seed=1, **more)


@functools.cache
def whole(name: str, noisy: bool = False) -> tuple[MultiHead, Outcome]:
    """The run that nothing interrupts."""
    return run(name, noisy=noisy)


def test_the_registry_knows_each_by_its_own_name() -> None:
    assert all(METHODS[name].name == name == create(name).name for name in METHODS)
    assert all(METHODS[name].__doc__ for name in METHODS)


@pytest.mark.parametrize("name", sorted(METHODS.keys() - {"finetune"}))
def test_less_is_forgotten_than_by_fine_tuning(name: str) -> None:
    plain, found = whole("finetune")[1].accuracy, whole(name)[1].accuracy
    assert metrics.forgetting(plain) > 0.15
    assert metrics.forgetting(found) < 0.6 * metrics.forgetting(plain)
    assert metrics.average_accuracy(found) > metrics.average_accuracy(plain)


@pytest.mark.parametrize("name", METHODS)
def test_the_first_task_is_learned_as_by_fine_tuning(name: str) -> None:
    assert whole(name)[1].accuracy[0] == whole("finetune")[1].accuracy[0]


@pytest.mark.parametrize("name", STRONG)
def test_strength_0_is_fine_tuning_exactly(name: str) -> None:
    (model, outcome), (plain, expected) = run(name, 0.0, noisy=True), whole("finetune", noisy=True)
    assert same(model, plain)
    assert outcome.accuracy == expected.accuracy


@pytest.mark.parametrize("name", METHODS)
def test_the_same_seed_gives_the_same_bits(name: str) -> None:
    assert same(run(name, noisy=True)[0], whole(name, noisy=True)[0])


class Killed(Exception):
    """Stands for a process that ends without a word."""


@pytest.mark.parametrize("place", [(2, "train", 5), (2, "measure", 0), (3, "warm_start", 0), (3, "train", STEPS)])
@pytest.mark.parametrize("name", METHODS)
def test_killed_in_the_middle_it_ends_with_the_same_bits(
    name: str, place: tuple[int, str, int], tmp_path: Path
) -> None:
    def kill(progress: Progress) -> None:
        if (progress.task, progress.phase, progress.step) == place:
            raise Killed

    with pytest.raises(Killed):
        run(name, noisy=True, checkpoint=tmp_path / "c", every=0, on_progress=kill)
    (model, outcome), (expected_model, expected) = run(name, noisy=True, checkpoint=tmp_path / "c"), whole(name, True)
    assert same(model, expected_model)
    assert outcome.accuracy == expected.accuracy


@pytest.mark.parametrize("name", sorted(METHODS.keys() - HOARDERS))
def test_memory_is_constant_in_the_number_of_tasks(name: str) -> None:
    """What a method keeps, heads apart (each task has one), is as large in the third task as in the second."""
    model, method, sizes = network(), make(name), Counter[int]()

    def weigh(progress: Progress) -> None:
        if progress.phase == "train":
            kept = {key: tensor for key, tensor in method.state().items() if "heads." not in key}
            sizes[progress.task] = sum(tensor.nbytes for tensor in kept.values())

    learn(model, STREAM, method, RECIPE, seed=1, on_progress=weigh)
    assert sizes[3] == sizes[2]


@pytest.mark.parametrize("name", METHODS)
def test_nothing_stays_behind_in_the_network(name: str) -> None:
    model, _ = whole(name)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_state_survives_a_round_trip_between_tasks(name: str) -> None:
    model = network()
    method = make(name)
    learn(model, STREAM[:2], method, RECIPE, seed=1)
    fresh = make(name)
    fresh.load_state(model, {key: tensor.clone() for key, tensor in method.state().items()})
    before, after = method.state(), fresh.state()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_method_that_is_not_there() -> None:
    with pytest.raises(ForgetlessError, match=r"^there is no method 'magic'; there are 'finetune', 'frozen', 'mas'"):
        create("magic")


def test_a_strength_for_a_method_without() -> None:
    with pytest.raises(ForgetlessError, match=r"^the method 'finetune' takes no strength\.$"):
        create("finetune", 1.0)


@pytest.mark.parametrize("strength", [-1.0, math.inf, math.nan])
def test_a_strength_that_makes_no_sense(strength: float) -> None:
    with pytest.raises(
        ForgetlessError, match=rf"^the strength must be a finite number of 0 or more, not {strength}\.$"
    ):
        create("mas", strength)
