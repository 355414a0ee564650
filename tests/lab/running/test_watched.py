"""A method that is watched: the same run, bit for bit, and what was seen after every task."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from forgetless.lab import results
from forgetless.lab.running.experiment import Experiment
from forgetless.lab.running.jobs import Job
from forgetless.lab.running.run import run
from forgetless.lab.running.watched import Watched
from forgetless.learn.heads import MultiHead
from forgetless.learn.method import Method
from forgetless.learn.methods import create
from forgetless.learn.network import Network
from forgetless.learn.position import Progress
from forgetless.learn.recipe import Recipe
from forgetless.learn.train import Outcome, learn
from streams import network, same, stream

STREAM = stream(3)
RECIPE = Recipe(lr=0.1, epochs=2, batch_size=24)
STEPS = 4  # in a task
NAMES = ["finetune", "mas", "mas+er"]


def look(model: Network) -> Mapping[str, Tensor]:
    """A figure, a vector with a "/" in its name, and a weight itself, which goes on learning."""
    answers = model(STREAM[0].test[0], STREAM[0].name)
    return {
        "sure": answers.softmax(1).amax(1).mean(),
        "answers/first": answers.argmax(1),
        "weight": model.get_parameter("backbone.0.weight"),
    }


@functools.cache
def watch(name: str) -> tuple[MultiHead, Watched, Outcome]:
    model, method = network(noisy=True), Watched(create(name), look)
    return model, method, learn(model, STREAM, method, RECIPE, seed=3)


@pytest.mark.parametrize("name", NAMES)
def test_the_run_is_the_one_that_nobody_watches(name: str) -> None:
    bare = network(noisy=True)
    expected = learn(bare, STREAM, create(name), RECIPE, seed=3)
    model, method, outcome = watch(name)
    assert outcome.accuracy == expected.accuracy
    assert same(model, bare)
    assert (method.name, method.settings()) == (name, create(name).settings())


class Noting(Method):
    """Fine-tuning that notes the weights at the end of every task by itself."""

    name = "noting"

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[Mapping[str, Tensor]] = []

    def end(self, model: Network, task: object) -> None:
        state = {name: each.clone() for name, each in model.state_dict().items()}
        model.eval()
        with torch.no_grad():
            self.ends.append({name: each.detach().clone() for name, each in look(model).items()})
        model.train()
        assert all(torch.equal(each, state[name]) for name, each in model.state_dict().items())


def test_what_is_seen_is_the_network_at_the_end_of_each_task() -> None:
    noting = Noting()
    learn(network(noisy=True), STREAM, noting, RECIPE, seed=3)
    _, method, _ = watch("finetune")
    figures, tensors = method.figures(), method.tensors()
    assert figures.keys() == {"sure"}
    assert tensors.keys() == {"answers/first", "weight"}
    assert figures["sure"] == [float(end["sure"]) for end in noting.ends]
    for name, found in tensors.items():
        assert torch.equal(found, torch.stack([end[name] for end in noting.ends])), name
    assert len({float(each.sum()) for each in tensors["weight"]}) == 3


def test_it_looks_in_eval_mode_without_gradients_and_puts_the_mode_back() -> None:
    seen: list[tuple[bool, bool, int]] = []

    def spy(model: Network) -> Mapping[str, Tensor]:
        modes = any(module.training for module in model.modules())
        seen.append((modes, torch.is_grad_enabled(), int(model.backbone[1].num_batches_tracked)))  # type: ignore[index]
        model(STREAM[0].test[0], STREAM[0].name)
        return {}

    for training in (True, False):
        model = network(noisy=True)
        model.grow(STREAM[0].name, 3)
        model.train(training)
        Watched(create("finetune"), spy).end(model, STREAM[0])
        assert model.training is training
        assert torch.is_grad_enabled()
    assert seen == [(False, False, 0)] * 2


def test_a_frozen_backbone_stays_in_eval_mode() -> None:
    model = network(noisy=True)
    model.grow(STREAM[0].name, 3)
    model.freeze()
    model.train()
    Watched(create("finetune"), look).end(model, STREAM[0])
    assert model.training
    assert not model.backbone.training


def test_a_strength_reaches_the_method_that_is_watched() -> None:
    method = Watched(create("mas+er", 0.5), look)
    assert method.strength == 0.5
    method.set_strength(2.0)
    assert method.strength == method.inner.strength == 2.0
    assert method.settings()["mas.strength"] == 2.0


class Killed(Exception):
    """Stands for a process that ends without a word."""


PLACES = [(1, "train", 2), (2, "train", 3), (2, "measure", STEPS), (2, "evaluate", STEPS), (3, "train", STEPS)]


@pytest.mark.parametrize(
    ("name", "how"),
    [("mas", Killed), ("mas+er", Killed), ("finetune", KeyboardInterrupt), ("mas+er", KeyboardInterrupt)],
)
def test_resumed_it_has_seen_the_same(name: str, how: type[BaseException], tmp_path: Path) -> None:
    """Stopped again and again, inside tasks and between a task's end and the next."""
    left = list(PLACES)

    def stop(progress: Progress) -> None:
        if left and (progress.task, progress.phase, progress.step) == left[0]:
            raise how

    def go() -> tuple[MultiHead, Watched, Outcome]:
        model, method = network(noisy=True), Watched(create(name), look)
        path = tmp_path / "c"
        return model, method, learn(model, STREAM, method, RECIPE, seed=3, checkpoint=path, every=0, on_progress=stop)

    while left:
        with pytest.raises(how):
            go()
        left.pop(0)
    model, method, outcome = go()
    expected_model, expected, whole = watch(name)
    assert same(model, expected_model)
    assert outcome.accuracy == whole.accuracy
    assert method.figures() == expected.figures()
    assert method.tensors().keys() == expected.tensors().keys()
    assert all(torch.equal(found, expected.tensors()[key]) for key, found in method.tensors().items())


@pytest.mark.parametrize("name", NAMES)
def test_its_state_holds_that_of_the_method_and_what_was_seen(name: str) -> None:
    model, method = network(noisy=True), Watched(create(name), look)
    learn(model, STREAM[:2], method, RECIPE, seed=3)
    state = {key: each.clone() for key, each in method.state().items()}
    fresh = Watched(create(name), look)
    fresh.load_state(model, state, STREAM[:2])
    assert fresh.figures() == method.figures()
    for one, other in ((fresh.state(), state), (fresh.inner.state(), method.inner.state())):
        assert one.keys() == other.keys()
        assert all(torch.equal(each, other[key]) for key, each in one.items())


def test_before_the_first_task_ends_nothing_was_seen() -> None:
    method = Watched(create("finetune"), look)
    assert (method.state(), method.figures(), method.tensors()) == ({}, {}, {})
    fresh = Watched(create("finetune"), look)
    fresh.load_state(network(), {})
    assert (fresh.figures(), fresh.tensors()) == ({}, {})


# ---- in an experiment


def keep(model: Network, seen: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], Mapping[str, object]]:
    return {**seen, "last": model.get_parameter("backbone.0.weight")}, {"tasks": len(model.tasks)}


BARE = Experiment("small", STREAM, network, RECIPE)
EXPERIMENT = dataclasses.replace(BARE, look=look, keep=keep)


def interrupting(method: str, task: int) -> Callable[[Job, Progress], None]:
    """Press Ctrl-C in the middle of a task."""

    def press(job: Job, progress: Progress) -> None:
        if (job.method, progress.task, progress.step) == (method, task, 2):
            raise KeyboardInterrupt

    return press


def test_an_interrupted_experiment_has_seen_the_same(tmp_path: Path) -> None:
    names = ["finetune", "mas+er"]
    bare = run(BARE, names, [1], tmp_path / "bare")
    whole = run(EXPERIMENT, names, [1], tmp_path / "whole")
    out = tmp_path / "out"
    for task in (2, 3):
        with pytest.raises(KeyboardInterrupt):
            run(EXPERIMENT, names, [1], out, resume=task > 2, on_progress=interrupting("mas+er", task))
    found = run(EXPERIMENT, names, [1], out, resume=True)
    for own, expected, plain in zip(found["runs"], whole["runs"], bare["runs"], strict=True):
        assert own["accuracy"] == expected["accuracy"] == plain["accuracy"]
        assert own["figures"] == expected["figures"]
        assert len(own["figures"]["sure"]) == 3
        assert "figures" not in plain
    assert results.read(out) == found
    for path in (tmp_path / "whole" / "kept").iterdir():
        assert (out / "kept" / path.name).read_bytes() == path.read_bytes()
