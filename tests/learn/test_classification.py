from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.utils.data import TensorDataset

from forgetless.errors import ForgetlessError
from forgetless.learn.classification import Classification, classes_of, classification
from forgetless.learn.methods import create
from forgetless.learn.recipe import Recipe
from forgetless.learn.train import learn
from objectives import retrieval_stream
from streams import CLASSES, network, stream

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
        classification("t", ("a", "b"), **parts)
    assert str(caught.value) == f"the {part} part of task 't' {sentence}"


def test_labels_of_a_dataset_are_checked_as_they_are_read() -> None:
    task = stream(1)[0]
    wrong = TensorDataset(task.train[0], task.train[1] + 1)
    dataset = dataclasses.replace(task, train=[(wrong.tensors[0], wrong.tensors[1])])
    with pytest.raises(ForgetlessError, match=r"^task 'task\.0' has labels 1…3 for 3 classes\.$"):
        learn(network(), [dataset], create("finetune"), Recipe(0.1, 1, 16), seed=0)


def test_a_loss_and_a_score_for_each_sample() -> None:
    objective, model = Classification(CLASSES), network(scenario="class")
    model.grow("first", 3)
    model.grow("second", 3)
    outputs, labels = torch.randn(5, 6), torch.tensor([0, 1, 2, 0, 1])
    batch = (torch.zeros(5, 2), labels)
    losses = objective.losses(model, "second", outputs, batch)
    assert torch.allclose(losses, -outputs.log_softmax(1)[torch.arange(5), labels + 3])
    assert (
        objective.scores(model, "second", outputs, batch).tolist() == (outputs.argmax(1) == labels + 3).float().tolist()
    )
    assert (objective.outputs, objective.score, objective.settings()) == (3, "accuracy", {"classes": 3})


def test_classes_of_a_task() -> None:
    assert classes_of(stream(1)[0]) == CLASSES
    with pytest.raises(ForgetlessError, match=r"^task 'facts 0' has no classes: its score is 'retrieval at 1'\.$"):
        classes_of(retrieval_stream(1)[0])
