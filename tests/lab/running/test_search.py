"""A strength for each task of a stream: found on that task's training samples alone, nothing changed by the search."""

from __future__ import annotations

import dataclasses
import re

import pytest
import torch

import streams
from forgetless.errors import ForgetlessError
from forgetless.lab.running.search import Search, learn_stream, search, search_split
from forgetless.learn import methods
from forgetless.learn.recipe import Recipe
from forgetless.learn.samples import samples_of

RECIPE = Recipe(0.05, 3, 16)
pytestmark = pytest.mark.filterwarnings("ignore:the pull holds", "ignore:no strength was accepted")


def parts(task):
    """The training part and the other one as tensors."""
    return [samples_of(data).take(torch.arange(len(data))) for data in (task.train, task.test)]


def test_the_split_keeps_every_class_and_every_sample_once():
    task = streams.stream(1, samples=96)[0]
    train, held_back = parts(search_split(task, 3))
    assert len(train[1]) == round(0.85 * 96)
    both = torch.cat([train[0], held_back[0]])
    assert torch.equal(both.sort(0).values, task.train[0].sort(0).values)
    assert set(train[1].tolist()) == set(task.train[1].tolist())
    assert torch.equal(parts(search_split(task, 3))[0][0], train[0])
    assert not torch.equal(parts(search_split(task, 4))[0][0], train[0])


def test_a_task_too_small_to_split_is_refused():
    task = streams.stream(1, samples=48)[0]
    tiny = dataclasses.replace(task, train=(task.train[0][:3], torch.arange(3)))
    sentence = (
        "task 'task.0' has 3 training samples for 3 classes: too few to hold some back, so no strength can be found on "
        "it."
    )
    with pytest.raises(ForgetlessError, match=f"^{re.escape(sentence)}$"):
        search_split(tiny, 0)


@pytest.mark.parametrize("name", ["mas", "si", "lwf"])
def test_a_search_changes_nothing_and_never_sees_the_test_samples(name, tmp_path):
    tasks = streams.stream(2, samples=96)
    blind = dataclasses.replace(tasks[1], test=(torch.full_like(tasks[1].test[0], torch.nan), tasks[1].test[1]))
    model, method = streams.network(), methods.create(name)
    learn_stream(model, tasks[:1], method, RECIPE, Search(), seed=0)
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, method.state()
    state = {key: tensor.clone() for key, tensor in state.items()}
    assert bool(state) == (name != "lwf")  # which keeps nothing from task to task
    trials = []
    found = search(model, blind, method, RECIPE, Search(), seed=0, path=tmp_path / "t.json", on_trial=trials.append)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    assert all(torch.equal(state[key], tensor) for key, tensor in method.state().items())
    assert method.strength == methods.create(name).strength
    assert list(found.trials) == trials
    again = search(model, tasks[1], method, RECIPE, Search(), seed=0)
    assert (again, again.trials) == (found, found.trials)


def test_a_stream_learns_every_task_at_what_was_decided_for_it(tmp_path):
    tasks = streams.stream(3, samples=96)
    method = methods.create("mas")
    matrix, decided = learn_stream(streams.network(), tasks, method, RECIPE, Search(), seed=0, folder=tmp_path)
    assert decided[0] is None
    assert method.strength == decided[2]
    assert method._anchor.strength == decided[2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2-trials.json", "3-trials.json"]
    assert [[entry is not None for entry in row] for row in matrix] == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]
    fresh = methods.create("mas")
    again, _ = learn_stream(streams.network(), tasks, fresh, RECIPE, Search(), seed=0, folder=tmp_path)
    assert again == matrix


def test_a_method_without_a_strength_is_refused():
    with pytest.raises(
        ForgetlessError, match=r"^the method 'finetune' takes no strength, so none can be found for it\.$"
    ):
        search(streams.network(), streams.stream(1)[0], methods.create("finetune"), RECIPE, Search(), seed=0)
