from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.learn.classification import classification
from forgetless.learn.position import Progress
from forgetless.learn.seeding import derive, permutation
from online import BUDGET, classes, learned
from streams import network, same, stream


def test_it_is_the_loop_one_would_write() -> None:
    """Fine-tuning: every batch twice, one optimizer, the outputs of all tasks from the start."""
    tasks = classes(2)
    found, outcome = learned("finetune", tasks, noisy=False)
    model = network(scenario="class")
    for task in tasks:
        torch.manual_seed(derive(3, task.name, "head"))
        model.grow(task.name, 2)
    optimizer = torch.optim.SGD(model.parameters(), BUDGET.lr, 0.9)
    for number, task in enumerate(tasks):
        order = permutation(30, derive(3, task.name, "order"))
        for chosen in order.tensor_split(math.ceil(30 / 8)):
            for _ in range(2):
                loss = nn.functional.cross_entropy(
                    model(task.train[0][chosen], task.name), task.train[1][chosen] + 2 * number
                )
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
    assert same(model, found)
    right = model(tasks[0].test[0], tasks[0].name).argmax(1) == tasks[0].test[1]
    assert outcome.accuracy[1][0] == pytest.approx(float(right.float().mean()))
    assert outcome.accuracy[0][1] is None


def test_looks_are_at_the_ends_of_tasks_and_in_between() -> None:
    ends = learned("er", classes())[1]
    assert [(at, len(scores)) for at, scores in ends.looks] == [(4, 1), (8, 2), (12, 3)]
    assert [scores for _, scores in ends.looks] == [row[: n + 1] for n, row in enumerate(ends.accuracy)]
    between = learned("er", classes(), look=3)[1]
    assert [(at, len(scores)) for at, scores in between.looks] == [(3, 1), (4, 1), (6, 2), (8, 2), (9, 3), (12, 3)]
    assert between.accuracy == ends.accuracy  # looking changes nothing


def test_progress_counts_batches() -> None:
    told: list[Progress] = []
    learned("finetune", classes(1), on_progress=told.append)
    assert [(each.phase, each.step, each.steps) for each in told] == [
        *(("train", step, 4) for step in range(1, 5)),
        ("measure", 4, 0),
        ("evaluate", 4, 0),
    ]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("buffer", 0, "an online learner's buffer must be an integer of at least 1, not 0"),
        ("buffer", -3, "buffer must be an integer of at least 1, not -3"),
        ("glances", 0, "glances must be an integer of at least 1, not 0"),
        ("batch_size", 0, "batch_size must be"),
        ("replay", 0, "replay must be"),
        ("lr", 0.0, "lr must be a positive number, not 0.0"),
        ("lr", math.nan, "lr must be a positive number, not nan"),
        ("momentum", 1.0, "momentum must be at least 0 and below 1"),
    ],
)
def test_bad_budgets(name: str, value: Any, said: str) -> None:
    with pytest.raises(ForgetlessError, match=said):
        replace(BUDGET, **{name: value})


def test_bad_streams() -> None:
    tasks = classes(2)
    with pytest.raises(ForgetlessError, match="a stream needs tasks of different names"):
        learned("er", [tasks[0], tasks[0]])
    with pytest.raises(ForgetlessError, match="a stream needs tasks of different names"):
        learned("er", [])
    again = classification("again", ("0a", "new"), tasks[1].train, tasks[1].test)
    with pytest.raises(ForgetlessError, match=r"the class '0a' is in task 'task\.0' and again in task 'again'"):
        learned("er", [tasks[0], again])
    learned("finetune", [tasks[0], again], scenario="domain")
    with pytest.raises(ForgetlessError, match="look is a number of batches, at least 1, not 0"):
        learned("er", tasks, look=0)


def test_a_loss_that_is_nan_stops_with_a_sentence_and_leaves_the_checkpoint(tmp_path: Path) -> None:
    tasks = classes(2)
    inputs, labels = tasks[1].train
    broken = inputs.clone().index_fill_(0, torch.tensor([7]), math.nan)
    bad = classification(tasks[1].name, ("x", "y"), (broken, labels), tasks[1].test)
    for name in ("er", "mango"):
        path = tmp_path / f"{name}.safetensors"
        with pytest.raises(ForgetlessError, match=f"the loss became nan in task 'task.1', batch \\d, under '{name}'"):
            learned(name, [tasks[0], bad], noisy=False, checkpoint=path)
        assert files.read_tensors(path, "checkpoint")[1]["position"]["index"] == 1


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"budget": replace(BUDGET, buffer=21)}, "the recipe's buffer is 20 there and 21 here"),
        ({"look": 2}, "look is None there and 2 here"),
        ({"seed": 4}, "seed is 3 there and 4 here"),
        ({"settings": {"gate": "magnitude"}}, "mango's gate is 'signed' there and 'magnitude' here"),
    ],
)
def test_other_settings_are_refused_when_resuming(changed: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    learned("mango", classes(1), checkpoint=path)
    with pytest.raises(ForgetlessError, match=said):
        learned("mango", classes(1), checkpoint=path, **changed)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    learned("er", stream(1), scenario="task", checkpoint=path)
    tensors, header = files.read_tensors(path, "checkpoint")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("learner/passes")}
    files.write_tensors(path, kept, "checkpoint", {key: header[key] for key in ("config", "position")})
    with pytest.raises(ForgetlessError, match="is damaged: it does not hold a whole run"):
        learned("er", stream(1), scenario="task", checkpoint=path)


def test_ctrl_c_saves_after_the_batch(tmp_path: Path) -> None:
    tasks, path = classes(2), tmp_path / "run.safetensors"

    def press(progress: Progress) -> None:
        if (progress.task, progress.step) == (2, 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learned("er", tasks, checkpoint=path, on_progress=press)
    assert files.read_tensors(path, "checkpoint")[1]["position"]["step"] == 2
    assert same(learned("er", tasks, checkpoint=path)[0], learned("er", tasks)[0])
