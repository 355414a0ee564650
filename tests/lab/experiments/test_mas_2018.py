"""The paper's experiment from end to end, on small trees in the original layouts."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import layouts
from forgetless.errors import ForgetlessError
from forgetless.lab import datasets
from forgetless.lab.experiments import create, mas_2018
from forgetless.lab.experiments.mas_2018 import METHODS, TASKS, load
from forgetless.lab.networks import alexnet
from forgetless.lab.published.mas_2018 import PAIRS
from forgetless.lab.running.experiment import Experiment, Suite
from forgetless.lab.running.run import run, run_all
from forgetless.lab.running.search import Search
from forgetless.learn import optimizers
from forgetless.learn.classification import classes_of
from forgetless.learn.position import Progress

models = pytest.importorskip("torchvision.models", reason="torchvision is not installed")
#: The sizes of the trees: classes, training and test pictures.
TREES = {
    "flowers102": (102, 4, 3),
    "indoor67": (2, 2, 1),
    "cub200": (2, 2, 1),
    "cars196": (2, 3, 3),
    "aircraft100": (2, 2, 1),
    "voc-actions": (11, 2, 1),
    "chars74k": (52, 356, 60),
    "svhn": (10, 3, 2),
}


def experiment(data: Path, **options: Any) -> Experiment | Suite:
    return create("mas-2018", data=data, **options).build()


class Small(nn.Module):
    """AlexNet's parts, small."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 5, 4), nn.ReLU(inplace=True))
        self.avgpool = nn.AdaptiveAvgPool2d(2)
        self.classifier = nn.Sequential(nn.Linear(16, alexnet.FEATURES), nn.ReLU(), nn.Linear(alexnet.FEATURES, 5))


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A small AlexNet, and pictures of 16 pixels for it."""
    monkeypatch.setattr(models, "alexnet", Small)
    monkeypatch.setattr(alexnet, "SIZE", 16)
    monkeypatch.setattr(mas_2018, "SIZE", 16)
    torch.manual_seed(0)
    torch.save(Small().state_dict(), tmp_path / "alexnet.pth")
    return str(tmp_path / "alexnet.pth")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All eight sets, and a catalog that knows how small they are."""
    data = tmp_path / "data"
    layouts.flowers102(data, monkeypatch)
    layouts.svhn(data, monkeypatch)
    for make in (layouts.indoor67, layouts.cub200, layouts.cars196, layouts.aircraft100, layouts.voc_actions):
        make(data)
    layouts.chars74k(data, each=8)
    for name, (classes, train, test) in TREES.items():
        entry = dataclasses.replace(datasets.CATALOG[name], classes=classes, train=train, test=test)
        monkeypatch.setitem(datasets.CATALOG, name, entry)
    return data


def test_the_eight_tasks_are_the_papers_in_its_order(root: Path, weights: str, tmp_path: Path) -> None:
    found = experiment(root, weights=weights, cache=tmp_path / "cache")
    assert isinstance(found, Experiment)
    assert [task.name for task in found.tasks] == list(TASKS)
    for task in found.tasks:
        classes, train, test = TREES[TASKS[task.name]]
        assert (len(classes_of(task)), len(task.train[1])) == (classes, train)
        assert len(task.test[1]) == test - test // 2  # the other half is for validation
        assert task.train[0].shape[2:] == ((32, 32) if task.name == "svhn" else (16, 16))
    recipe = found.recipe
    assert (recipe.optimizer, recipe.batch_size, recipe.epochs) == (optimizers.sgd, 200, 100)  # momentum 0.9
    assert found.tuning is not None
    assert found.tuning.fixed == {"mas": 1.0, "local-mas": 1.0}
    assert found.tuning.search == Search(drop=0.2, factor=0.5, most=10)
    assert tuple(found.methods) == METHODS
    assert len(list((tmp_path / "cache").iterdir())) == 2 * 8  # a file for each part


def test_it_runs_is_killed_and_goes_on(root: Path, weights: str, tmp_path: Path) -> None:
    options = {"weights": weights, "epochs": 1, "cache": str(tmp_path / "cache")}
    found = experiment(root, **options)
    assert isinstance(found, Experiment)
    short = dataclasses.replace(found, tasks=[found.tasks[0], found.tasks[2], found.tasks[7]])

    def stop(job: object, progress: Progress) -> None:
        if (progress.task, progress.phase) == (3, "train"):
            raise KeyboardInterrupt

    whole = run(short, ["mas"], [0], tmp_path / "whole")["runs"]
    with pytest.raises(KeyboardInterrupt):
        run(short, ["mas"], [0], tmp_path / "r", on_progress=stop)
    again = run(short, ["mas"], [0], tmp_path / "r", resume=True)["runs"]
    assert [each["accuracy"] for each in again] == [each["accuracy"] for each in whole]
    assert again[0]["strength"] == 1.0  # untuned


def test_pairs_are_four_experiments_shown_as_table_2(root: Path, weights: str, tmp_path: Path) -> None:
    options = {"weights": weights, "epochs": 1, "cache": str(tmp_path / "cache"), "amp": True}
    suite = experiment(root, pairs=True, omega="test", **options)
    assert isinstance(suite, Suite)
    assert tuple(suite.experiments) == PAIRS
    for pair, each in suite.experiments.items():
        assert [task.name for task in each.tasks] == pair.split("-")
        assert each.config["pair"] == pair
        assert tuple(each.methods) == ("mas", "local-mas")
    found = run_all({pair: suite.experiments[pair] for pair in PAIRS[:1]}, ["mas"], [0], tmp_path / "r")
    shown = suite.table(found)
    assert "| method | whose | birds → scenes | scenes → birds | flowers → birds | flowers → scenes |" in shown
    assert "| MAS | ours |" in shown
    assert "| MAS | paper | 53.2 (-0.4) / 55.0 |" in shown


def refusal(data: Path, **options: object) -> str:
    with pytest.raises(ForgetlessError) as caught:
        experiment(data, **options)
    return str(caught.value)


def test_bad_input(root: Path, weights: str, tmp_path: Path) -> None:
    options = {"weights": weights, "cache": str(tmp_path / "cache")}
    said = refusal(tmp_path / "nothing", pairs=True, **options)
    assert said.startswith(f"{tmp_path}/nothing lacks 3 of 3 sets. Oxford Flowers-102 (flowers-102/): `forgetless data")
    assert "; MIT Indoor-67 (indoor67/): " in said
    assert "; CUB-200-2011 (CUB_200_2011/): " in said
    assert refusal(root, omega="all", **options) == "omega must be 'train', 'test' or 'both', not 'all'."
    assert refusal(root, weights="w.pth").startswith("AlexNet's ImageNet weights are not at w.pth; ")
    assert refusal(root, device="abacus", **options).startswith("there is no device 'abacus' here")
    (root / "indoor67" / "Images" / "kitchen" / "c.jpg").unlink()
    said = refusal(root, pairs=True, **options)
    assert "it is unpacked only in part, 1 of its 1 test pictures are missing, 'kitchen/c.jpg'" in said


def test_bad_pictures_are_left_out_only_on_demand(root: Path, weights: str, tmp_path: Path) -> None:
    (root / "indoor67" / "Images" / "kitchen" / "a b.jpg").write_bytes(b"half a pict")
    said = refusal(root, pairs=True, weights=weights, cache=str(tmp_path / "cache"))
    assert said.startswith("kitchen/a b.jpg is no picture that can be read: ")
    assert said.endswith("A run with --skip-bad leaves it out.")
    with (
        pytest.warns(UserWarning, match=r"left out 1 of 2 pictures that cannot be read: 'kitchen/a b\.jpg'\."),
        pytest.raises(ForgetlessError, match=r"^no training picture of 'kitchen' in scenes can be read, "),
    ):
        load(root, ("scenes",), skip_bad=True)  # it is the only one of its class
    layouts.picture(root / "indoor67" / "Images" / "kitchen" / "a b.jpg")
    assert len(load(root, ("scenes",), skip_bad=True)["scenes"].train[1]) == 2
