"""The contract every method keeps, over the registry."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest
import torch

from forgetless import metrics
from forgetless.errors import ForgetlessError
from forgetless.heads import MultiHead
from forgetless.methods import METHODS, create
from forgetless.task import Recipe
from forgetless.train import Outcome, Progress, learn
from streams import network, same, stream

STREAM = stream(3)
RECIPE = Recipe(lr=0.05, epochs=5, batch_size=24)
STRONG = [name for name in METHODS if create(name).strength is not None]
BOUNDS = {"finetune"}  # what the others are held against


def run(name: str, strength: float | None = None, *, noisy: bool = False, **more: object) -> tuple[MultiHead, Outcome]:
    model = network(noisy=noisy)
    return model, learn(model, STREAM, create(name, strength), RECIPE, seed=1, **more)  # type: ignore[arg-type]


def test_the_registry_knows_each_by_its_own_name() -> None:
    assert all(METHODS[name].name == name == create(name).name for name in METHODS)
    assert all(METHODS[name].__doc__ for name in METHODS)


@pytest.mark.parametrize("name", sorted(METHODS.keys() - BOUNDS))
def test_less_is_forgotten_than_by_fine_tuning(name: str) -> None:
    _, plain = run("finetune")
    _, outcome = run(name)
    assert metrics.forgetting(plain.accuracy) > 0.1
    assert metrics.forgetting(outcome.accuracy) < 0.7 * metrics.forgetting(plain.accuracy)
    assert metrics.average_accuracy(outcome.accuracy) > metrics.average_accuracy(plain.accuracy)


@pytest.mark.parametrize("name", METHODS)
def test_the_first_task_is_learned_as_by_fine_tuning(name: str) -> None:
    assert run(name)[1].accuracy[0] == run("finetune")[1].accuracy[0]


@pytest.mark.parametrize("name", STRONG)
def test_strength_0_is_fine_tuning_exactly(name: str) -> None:
    (model, outcome), (plain, expected) = run(name, 0.0, noisy=True), run("finetune", noisy=True)
    assert same(model, plain)
    assert outcome.accuracy == expected.accuracy


@pytest.mark.parametrize("name", METHODS)
def test_the_same_seed_gives_the_same_bits(name: str) -> None:
    assert same(run(name, noisy=True)[0], run(name, noisy=True)[0])


class Killed(Exception):
    """Stands for a process that ends without a word."""


@pytest.mark.parametrize("place", [(1, "train", 7), (2, "train", 3), (2, "measure", 0), (3, "train", 8)])
@pytest.mark.parametrize("name", METHODS)
def test_killed_in_the_middle_it_ends_with_the_same_bits(
    name: str, place: tuple[int, str, int], tmp_path: Path
) -> None:
    def kill(progress: Progress) -> None:
        if (progress.task, progress.phase, progress.step) == place:
            raise Killed

    with pytest.raises(Killed):
        run(name, noisy=True, checkpoint=tmp_path / "c", every=0, on_progress=kill)
    (model, outcome), (whole, expected) = run(name, noisy=True, checkpoint=tmp_path / "c"), run(name, noisy=True)
    assert same(model, whole)
    assert outcome.accuracy == expected.accuracy


@pytest.mark.parametrize("name", METHODS)
def test_memory_is_constant_in_the_number_of_tasks(name: str) -> None:
    """What a method keeps, heads apart (each task has one), is as large in the third task as in the second."""
    model, method, sizes = network(), create(name), Counter[int]()

    def weigh(progress: Progress) -> None:
        if progress.phase == "train":
            kept = {key: tensor for key, tensor in method.state().items() if "heads." not in key}
            sizes[progress.task] = sum(tensor.nbytes for tensor in kept.values())

    learn(model, STREAM, method, RECIPE, seed=1, on_progress=weigh)
    assert sizes[3] == sizes[2]


@pytest.mark.parametrize("name", METHODS)
def test_nothing_stays_behind_in_the_network(name: str) -> None:
    model, _ = run(name)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_state_survives_a_round_trip_between_tasks(name: str) -> None:
    model = network()
    method = create(name)
    learn(model, STREAM[:2], method, RECIPE, seed=1)
    fresh = create(name)
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
