from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from forgetless.errors import ForgetlessError
from forgetless.lab import results
from forgetless.lab.experiments import split_mnist
from forgetless.lab.published.hsu_2018 import SPLIT_MNIST
from forgetless.lab.running.experiment import Suite
from forgetless.lab.running.run import run_all
from idx_files import written


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    written(tmp_path / "data")
    return split_mnist.SplitMNIST(data=tmp_path / "data").build()


def test_five_pairs_in_three_scenarios(suite: Suite) -> None:
    assert list(suite.experiments) == ["task", "domain", "class"]
    for scenario, experiment in suite.experiments.items():
        assert [task.name for task in experiment.tasks] == ["0 and 1", "2 and 3", "4 and 5", "6 and 7", "8 and 9"]
        assert [task.train[1].tolist() for task in experiment.tasks] == [[0, 1, 0, 1]] * 5
        assert experiment.network(3).scenario == scenario
        assert {*experiment.methods} == {*SPLIT_MNIST[scenario], "mas-per-batch"}


def test_steps_are_matched_whatever_the_number_of_pictures(suite: Suite) -> None:
    """4 epochs of 94 steps with the 12,000 pictures of a task there; here each task has 4."""
    assert split_mnist.STEPS == 376
    assert {experiment.recipe.epochs for experiment in suite.experiments.values()} == {376}
    assert suite.experiments["task"].settings["er"] == {"memory": round(4400 * 20 / 60000)}


def test_pictures_are_padded_and_standardized() -> None:
    pixels = torch.randint(0, 256, (2, 784), dtype=torch.uint8)
    found = split_mnist.Padded()(pixels).view(2, 32, 32)
    assert torch.allclose(found[:, 2:30, 2:30], (pixels.view(2, 28, 28) / 255 - 0.1) / 0.2752, atol=1e-6)
    assert torch.allclose(found[:, :2], torch.tensor(-0.1 / 0.2752))


def test_it_runs_and_prints_the_table(suite: Suite, tmp_path: Path) -> None:
    small = {
        name: dataclasses.replace(each, recipe=dataclasses.replace(each.recipe, epochs=1))
        for name, each in suite.experiments.items()
    }
    found = run_all(small, ["finetune", "mas-per-batch"], [0], tmp_path / "out")
    assert found.keys() == small.keys()
    for name in small:
        assert results.read(tmp_path / "out" / name) == found[name]
    text = suite.table(found)
    assert "| finetune | – | 93.46 ± 2.01 | " in text
    assert text.count("\n| mas-per-batch | ") == 3
    assert [run["strength"] for run in found["domain"]["runs"]] == [None, 10000.0]


def test_a_scenario_that_is_not_there() -> None:
    with pytest.raises(ForgetlessError, match=r"^scenario must be 'task', 'domain', 'class' or 'all', not 'tasks'\.$"):
        split_mnist.SplitMNIST(scenario="tasks")
