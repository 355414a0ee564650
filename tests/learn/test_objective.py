"""Objectives that are no classification run through the same loop and the same methods."""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from forgetless.errors import ForgetlessError
from forgetless.learn import metrics, train
from forgetless.learn.methods import METHODS, create
from forgetless.learn.network import Network
from forgetless.learn.optimizers import adam
from forgetless.learn.position import Progress
from forgetless.learn.recipe import Recipe
from forgetless.learn.task import Task
from forgetless.learn.train import Outcome, learn
from objectives import (
    NextToken,
    Retrieval,
    retrieval_heads,
    retrieval_network,
    retrieval_stream,
    token_network,
    token_stream,
)
from streams import same

KINDS: dict[str, tuple[Callable[[], list[Task]], Callable[[], Network], Recipe]] = {
    "retrieval": (retrieval_stream, retrieval_network, Recipe(0.01, 60, 8, adam)),
    "retrieval, a head per task": (retrieval_stream, retrieval_heads, Recipe(0.01, 60, 8, adam, warm_start=False)),
    "tokens": (token_stream, token_network, Recipe(0.02, 20, 16, adam)),
}
#: Less than fine-tuning forgets, by method; λ on the scale of these objectives' Ω.
KEEPING = {"mas": 3.0, "ewc": 3.0, "er": 1.0, "mas+er": 1.0, "lwf": 30.0, "der++": 1.0, "joint": None}
STEPS = 6  # in the short runs


def run(kind: str, name: str, strength: float | None = None, recipe: Recipe | None = None, **more: Any) -> Any:
    stream, network, own = KINDS[kind]
    model, settings = network(), {"fitting": 5} if name == "ebll" else {}
    return model, learn(model, stream(), create(name, strength, **settings), recipe or own, seed=1, **more)


@functools.cache
def plain(kind: str) -> tuple[Network, Outcome]:
    model, outcome = run(kind, "finetune")
    return model, outcome


@pytest.mark.parametrize("kind", KINDS)
def test_each_task_is_learned_and_forgotten(kind: str) -> None:
    outcome = plain(kind)[1]
    scores = outcome.accuracy
    assert metrics.learning_accuracy(scores) > 0.8
    assert metrics.forgetting_mas(scores) > 0.3
    # One head answers for tasks to come as well.
    assert all(entry is not None for row in scores for entry in row) == (kind != "retrieval, a head per task")


@pytest.mark.parametrize("name", KEEPING)
@pytest.mark.parametrize("kind", ["retrieval", "tokens"])
def test_methods_keep_more_than_fine_tuning(kind: str, name: str) -> None:
    _, outcome = run(kind, name, KEEPING[name])
    assert metrics.forgetting_mas(outcome.accuracy) < 0.97 * metrics.forgetting_mas(plain(kind)[1].accuracy)


class Killed(Exception):
    """Stands for a process that ends without a word."""


@pytest.mark.parametrize("name", [*METHODS, "mas+er"])
@pytest.mark.parametrize("kind", ["retrieval", "tokens"])
def test_every_method_runs_and_is_resumed_to_the_same_bits(kind: str, name: str, tmp_path: Path) -> None:
    recipe = Recipe(0.01, 2, 8 if kind == "retrieval" else 12, adam)
    model, outcome = run(kind, name, recipe=recipe)
    for place in ((2, "train", 3), (2, "measure", STEPS), (3, "train", STEPS)):

        def kill(progress: Progress, place: tuple[int, str, int] = place) -> None:
            if (progress.task, progress.phase, progress.step) == place:
                raise Killed

        with pytest.raises(Killed):
            run(kind, name, recipe=recipe, checkpoint=tmp_path / "c", every=0, on_progress=kill)
    again, found = run(kind, name, recipe=recipe, checkpoint=tmp_path / "c")
    assert same(again, model)
    assert found.accuracy == outcome.accuracy


def test_a_stream_may_mix_objectives() -> None:
    """Retrieval and classification under one backbone, with replay by each sample's own objective."""
    from forgetless.learn.classification import classification

    facts = retrieval_stream(2)
    labels = (torch.arange(24) % 3).long()
    kinds = classification("kinds", ("a", "b", "c"), (facts[0].train[0], labels), (facts[0].train[0], labels))
    model = retrieval_heads()
    outcome = learn(model, [facts[0], kinds, facts[1]], create("er"), Recipe(0.01, 60, 8, adam), seed=1)
    assert min(entry for entry in outcome.accuracy[-1] if entry is not None) > 0.6


def test_a_score_that_is_no_share_is_refused() -> None:
    class Perplexity(NextToken):
        def evaluate(self, model: Network, task: str, data: Any, batch_size: int) -> float:
            return 1 / super().evaluate(model, task, data, batch_size)

    task = token_stream(1)[0]
    with pytest.raises(ForgetlessError, match=r"is [\d.]+: a score is a share in \[0, 1\], and 1 is best\.$"):
        learn(
            token_network(),
            [Task("t", task.train, task.test, Perplexity())],
            create("finetune"),
            Recipe(0.1, 1, 16),
            seed=0,
        )


def test_the_checkpoint_of_another_objective(tmp_path: Path) -> None:
    class Other(Retrieval):
        pass

    task, recipe = retrieval_stream(1)[0], Recipe(0.1, 1, 16)
    learn(retrieval_network(), [task], create("finetune"), recipe, seed=0, checkpoint=tmp_path / "c")
    other = Task(task.name, task.train, task.test, Other(task.objective.candidates))  # type: ignore[attr-defined]
    with pytest.raises(ForgetlessError, match=r"task 1 is '….* Retrieval\(.* there and '….* Other\("):
        learn(retrieval_network(), [other], create("finetune"), recipe, seed=0, checkpoint=tmp_path / "c")


def test_the_loop_knows_nothing_of_labels_classes_or_logits() -> None:
    tree = ast.parse(inspect.getsource(train))
    words = ("label", "logit", "entropy", "heads", "outputs_before", "classification")
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    assert not [name for name in names if any(word in name.lower() for word in words)]
