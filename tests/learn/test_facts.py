"""Facts as an objective: the loss and the score against loops, every refusal, and every kind of method."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from forgetless.errors import ForgetlessError
from forgetless.learn import metrics
from forgetless.learn.facts import Facts, fact_keys, picture_keys
from forgetless.learn.heads import SharedHead
from forgetless.learn.methods import create
from forgetless.learn.optimizers import adam
from forgetless.learn.position import Progress
from forgetless.learn.recipe import Recipe
from forgetless.learn.task import Task
from forgetless.learn.train import Outcome, learn
from streams import same

FACTS, PARTS, DIMENSIONS, INPUTS, EACH = 6, 3, 4, 10, 4
METHODS = (
    *("finetune", "mas", "local-mas", "ewc", "online-ewc", "si"),
    *("joint", "frozen", "er", "lwf", "imm-mode"),
)
RECIPE = Recipe(0.04, 10, 4, adam)
STEPS = 3 * RECIPE.epochs  # of a task


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@functools.cache
def objective() -> Facts:
    """Six facts, some without an object, one of a subject alone."""
    present = torch.ones(FACTS, PARTS, dtype=torch.bool)
    present[1, 2] = present[4, 2] = present[5, 1] = present[5, 2] = False
    vectors = drawn(FACTS, PARTS, DIMENSIONS).float() * present[..., None]
    return Facts(tuple(f"subject {number},," for number in range(FACTS)), vectors, present)


def bare(outputs: int = PARTS * DIMENSIONS) -> SharedHead:
    """A network whose outputs are its inputs, for what takes one and looks at its outputs alone."""
    layer = nn.Linear(outputs, outputs)
    nn.init.eye_(layer.weight)
    nn.init.zeros_(layer.bias)
    return SharedHead(nn.Identity(), layer, outputs)


def slow_losses(facts: Facts, outputs: Tensor, labels: Tensor) -> list[float]:
    found = []
    for row, label in zip(outputs, labels.tolist(), strict=True):
        total = 0.0
        for part, said in enumerate(row.view(PARTS, DIMENSIONS)):
            if facts.present[label, part]:
                total += float((said - facts.vectors[label, part].double()).square().sum().sqrt())
        found.append(total)
    return found


def test_the_loss_against_a_loop_in_float64() -> None:
    facts, labels = objective(), torch.tensor([5, 0, 1, 4, 1, 2, 3])
    outputs = drawn(len(labels), facts.outputs, seed=1)
    losses = facts.losses(bare(), "t", outputs, (torch.empty(0), labels))
    assert losses.dtype == torch.float64
    assert losses.tolist() == pytest.approx(slow_losses(facts, outputs, labels), abs=1e-12)


def test_a_missing_part_has_no_gradient_and_a_distance_of_zero_no_nan() -> None:
    facts, labels = objective(), torch.arange(FACTS)
    outputs = drawn(FACTS, facts.outputs, seed=1)
    outputs.view(FACTS, PARTS, DIMENSIONS)[0] = facts.vectors[0].double()  # at its aim
    outputs.view(FACTS, PARTS, DIMENSIONS)[5, 2] = 0  # a missing part at the vector that it does not have
    outputs.requires_grad_()
    facts.losses(bare(), "t", outputs, (torch.empty(0), labels)).sum().backward()
    assert outputs.grad is not None
    gradient = outputs.grad.view(FACTS, PARTS, DIMENSIONS)
    assert torch.equal(gradient[~facts.present], torch.zeros_like(gradient[~facts.present]))
    assert torch.equal(gradient[0], torch.zeros_like(gradient[0]))
    lengths = gradient[1:][facts.present[1:]].norm(dim=1)  # the distance is not squared: every part pulls alike
    assert torch.allclose(lengths, torch.ones_like(lengths))


def test_the_keys_of_a_picture_and_a_fact_give_the_mean_cosine_over_the_parts_that_are_there() -> None:
    facts, outputs = objective(), drawn(5, PARTS * DIMENSIONS, seed=2).float()
    products = picture_keys(outputs, PARTS) @ fact_keys(facts.vectors, facts.present).T
    for n, row in enumerate(outputs.view(-1, PARTS, DIMENSIONS)):
        for c in range(FACTS):
            there = [part for part in range(PARTS) if facts.present[c, part]]
            cosines = [float(torch.cosine_similarity(row[part], facts.vectors[c, part], dim=0)) for part in there]
            assert float(products[n, c]) == pytest.approx(sum(cosines) / len(cosines), abs=1e-6)


def test_the_score_of_a_case_by_hand() -> None:
    """Two facts of one part; each finds its own pictures in the first and the third place. The third has no picture."""
    facts = Facts(
        ("a,,", "b,,", "c,,"), torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]], [[1.0, 1.0]]]), torch.ones(3, 1).bool()
    )
    pictures = torch.tensor([[5.0, 0.0], [0.1, 1.0], [0.0, 3.0], [1.0, 0.2]])
    data = (pictures, torch.tensor([0, 0, 1, 1]))
    for batch_size in (1, 3, 100):
        assert facts.evaluate(bare(2), "t", data, batch_size) == pytest.approx((1 + 2 / 3) / 2)
    similar, labels = facts.similarities(bare(2), "t", data, 2)
    assert labels.tolist() == [0, 0, 1, 1]
    assert torch.allclose(similar, torch.cosine_similarity(pictures[:, None], facts.vectors[:, 0], dim=2), atol=1e-6)


def test_what_it_says_of_itself() -> None:
    facts = objective()
    assert (facts.outputs, facts.logits, facts.warm_starts) == (PARTS * DIMENSIONS, False, False)
    other = Facts(facts.names, facts.vectors + 1, facts.present)
    assert facts.settings() == {**other.settings(), "vectors": facts.settings()["vectors"]}
    assert facts.settings()["vectors"] != other.settings()["vectors"]
    assert {name: facts.settings()[name] for name in ("facts", "parts", "dimensions")} == {
        "facts": FACTS,
        "parts": PARTS,
        "dimensions": DIMENSIONS,
    }


@pytest.mark.parametrize(
    ("names", "vectors", "present", "said"),
    [
        (("a,,",), (2, 3, 4), (2, 3), r"^1 facts need vectors .*, not \[2, 3, 4\] and \[2, 3\]\.$"),
        (("a,,", "b,,"), (2, 3, 4), (2, 2), r"^2 facts need vectors .*, not \[2, 3, 4\] and \[2, 2\]\.$"),
        (("a,,", "b,,"), (3, 3, 4), (3, 3), r"^2 facts need vectors .*, not \[3, 3, 4\] and \[3, 3\]\.$"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_shapes_that_do_not_fit(names: tuple[str, ...], vectors: Any, present: Any, said: str) -> None:
    with pytest.raises(ForgetlessError, match=said):
        Facts(names, torch.zeros(vectors), torch.ones(present).bool())


def test_a_fact_without_a_part() -> None:
    present = torch.tensor([[True, False], [False, False]])
    with pytest.raises(ForgetlessError, match=r"^the fact 'b,,' has no part\.$"):
        Facts(("a,,", "b,,"), torch.zeros(2, 2, 3), present)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0, 1], r"^the training data of task 't' needs 3 int64 labels, not torch.int64 \[2\]\.$"),
        ([0.0, 1.0, 2.0], r"^the training data of task 't' needs 3 int64 labels, not torch.float32 \[3\]\.$"),
        ([[0], [1], [2]], r"^the training data of task 't' needs 3 int64 labels, not torch.int64 \[3, 1\]\.$"),
        ([0, 1, FACTS], r"^the training data of task 't' has labels outside its 6 facts\.$"),
        ([0, -1, 2], r"^the training data of task 't' has labels outside its 6 facts\.$"),
    ],
)
def test_labels_that_do_not_fit(labels: list[Any], said: str) -> None:
    with pytest.raises(ForgetlessError, match=said):
        objective().check((torch.zeros(3, 5), torch.tensor(labels)), "the training data of task 't'")


def test_data_that_are_empty_or_cannot_be_looked_at() -> None:
    empty = (torch.zeros(0, PARTS * DIMENSIONS), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(ForgetlessError, match=r"^it is empty\.$"):
        objective().check(empty, "it")
    with pytest.raises(ForgetlessError, match=r"^task 't' has no samples to be evaluated on\.$"):
        objective().evaluate(bare(), "t", [], 4)
    objective().check({"pictures": torch.zeros(3)}, "it")  # checked as it is read
    objective().check((empty[0], torch.zeros(0, dtype=torch.int64), empty[0]), "it")


@pytest.mark.parametrize("label", [-1, FACTS])
def test_a_label_of_no_fact_in_a_batch(label: int) -> None:
    data = (torch.zeros(2, PARTS * DIMENSIONS), torch.tensor([0, label]))
    with pytest.raises(ForgetlessError, match=r"^task 't' has labels outside its 6 facts\.$"):
        objective().losses(bare(), "t", data[0], data)
    with pytest.raises(ForgetlessError, match=r"^task 't' has labels outside its 6 facts\.$"):
        objective().evaluate(bare(), "t", data, 4)


def test_outputs_that_are_not_finite() -> None:
    data = (torch.full((2, PARTS * DIMENSIONS), torch.nan), torch.tensor([0, 1]))
    with pytest.raises(ForgetlessError, match=r"^the outputs of task 't' hold NaN or Inf in eval mode\.$"):
        objective().evaluate(bare(), "t", data, 4)


def stream() -> list[Task]:
    """Two tasks of three facts each."""
    centers, found = drawn(FACTS, INPUTS, seed=3).float(), []
    for number in range(2):
        labels = torch.arange(3 * number, 3 * number + 3).repeat(EACH)
        parts = (centers[labels] + 0.2 * drawn(len(labels), INPUTS, seed=seed).float() for seed in (4, 5))
        train, test = ((pictures, labels) for pictures in parts)
        found.append(Task(f"facts {number}", train, test, objective()))
    return found


def network() -> SharedHead:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = nn.Sequential(nn.Linear(INPUTS, 12), nn.Tanh(), nn.Dropout(0.1))
        return SharedHead(backbone, nn.Linear(12, PARTS * DIMENSIONS), PARTS * DIMENSIONS)


def run(name: str, **more: Any) -> tuple[SharedHead, Outcome]:
    model = network()
    return model, learn(model, stream(), create(name), RECIPE, seed=1, **more)


class Killed(Exception):
    """Stands for a process that ends without a word."""


@pytest.mark.parametrize("name", METHODS)
def test_methods_learn_facts_and_are_resumed_to_the_same_bits(name: str, tmp_path: Path) -> None:
    model, outcome = run(name)
    first = outcome.accuracy[0][0]
    assert first is not None
    assert first > 0.9
    assert all(entry is not None for row in outcome.accuracy for entry in row)  # one head answers for all tasks
    if name in ("finetune", "si", "er", "joint"):  # nothing holds the second task back
        assert metrics.learning_accuracy(outcome.accuracy) > 0.9
    for place in ((1, "train", STEPS // 2), (2, "train", STEPS // 2)):

        def kill(progress: Progress, place: tuple[int, str, int] = place) -> None:
            if (progress.task, progress.phase, progress.step) == place:
                raise Killed

        with pytest.raises(Killed):
            run(name, checkpoint=tmp_path / "c", every=0, on_progress=kill)
    again, found = run(name, checkpoint=tmp_path / "c")
    assert same(again, model)
    assert found.accuracy == outcome.accuracy


def test_the_checkpoint_of_other_facts(tmp_path: Path) -> None:
    run("finetune", checkpoint=tmp_path / "c")
    facts, tasks = objective(), stream()
    other = Facts(facts.names, -facts.vectors, facts.present)
    tasks[0] = Task(tasks[0].name, tasks[0].train, tasks[0].test, other)
    with pytest.raises(ForgetlessError, match=r"task 1 is '….* there and '….* here"):
        learn(network(), tasks, create("finetune"), RECIPE, seed=1, checkpoint=tmp_path / "c")
