"""The method `task-free-mas`: protection begins inside a task, and its end changes nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from forgetless.learn.classification import classification
from forgetless.learn.heads import MultiHead
from forgetless.learn.method import Method
from forgetless.learn.methods import create
from forgetless.learn.methods.task_free_mas import TaskFreeMASMethod
from forgetless.learn.network import Network
from forgetless.learn.recipe import Recipe
from forgetless.learn.samples import Batch
from forgetless.learn.task import Task
from forgetless.learn.train import learn


def task(name: str, axis: int) -> Task:
    inputs = torch.randn(64, 6, generator=torch.Generator().manual_seed(axis))
    labels = (inputs[:, axis] > 0).long()
    return classification(name, ("no", "yes"), (inputs, labels), (inputs, labels))


def network(scenario: str) -> MultiHead:
    torch.manual_seed(0)
    return MultiHead(nn.Sequential(nn.Linear(6, 16), nn.ReLU()), 16, scenario=scenario)


class Ended(TaskFreeMASMethod):
    """Notes Ω before and after the end of every task."""

    def end(self, model: Network, task: Task) -> None:
        before = {name: omega.clone() for name, omega in self.anchor(model).importance.items()}
        super().end(model, task)
        after = self.anchor(model).importance
        assert before.keys() == after.keys()
        assert all(torch.equal(omega, after[name]) for name, omega in before.items())
        self.seen = [*getattr(self, "seen", []), len(before)]


def test_protection_comes_from_plateaus_and_not_from_borders() -> None:
    recipe = Recipe(0.1, 6, 16)
    settled = Ended(1e-3, mean=0.5)
    learn(network("domain"), [task("a", 0), task("b", 1)], settled, recipe, seed=0)
    assert settled.seen == [4, 4]  # the first task has settled, and its weights are protected before it ends
    never = Ended(1e-3, mean=1e-9)
    learn(network("domain"), [task("a", 0), task("b", 1)], never, recipe, seed=0)
    assert never.seen == [0, 0]


def test_where_tasks_have_heads_of_their_own_only_the_backbone_is_protected() -> None:
    method = TaskFreeMASMethod(1e-3, mean=0.5)
    learn(network("task"), [task("a", 0), task("b", 1)], method, Recipe(0.1, 6, 16), seed=0)
    assert method._anchor is not None
    assert set(method._anchor.importance) == {"backbone.0.weight", "backbone.0.bias"}


class Watching(Method):
    """Counts what it observes."""

    name = "watching"
    counted = 0

    def begin(self, model: Network, task: Task, optimizer: Optimizer) -> None:
        self.losses: list[Tensor] = []

    def observe(self, model: Network, batch: Batch, losses: Tensor) -> None:
        assert not losses.requires_grad
        self.losses.append(losses)


def test_every_step_is_observed_also_in_a_composition() -> None:
    from forgetless.learn.families.composed import Composed

    method = Watching()
    learn(network("domain"), [task("a", 0)], Composed([create("mas"), method]), Recipe(0.1, 3, 16), seed=0)
    assert [len(each) for each in method.losses] == [16] * 12
