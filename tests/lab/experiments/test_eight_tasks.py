from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import shades
from forgetless.errors import ForgetlessError
from forgetless.lab.experiments import create, eight_tasks
from forgetless.lab.experiments.eight_tasks import METHODS, TASKS
from forgetless.lab.published.mas_2018 import PAIRS, TITLES
from forgetless.lab.running.experiment import Experiment, Suite
from forgetless.lab.running.run import run
from forgetless.lab.running.search import Search
from forgetless.learn.heads import MultiHead


def small(name: str) -> MultiHead:
    if name != "squeezenet":
        raise ForgetlessError(f"there is no network {name!r}.")
    return shades.small()


def experiment(data: Path, **options: Any) -> Experiment | Suite:
    return create("eight-tasks", data=data, **options).build()


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small set of two classes for every task, and a small network."""
    monkeypatch.setattr(eight_tasks, "pretrained", small)
    for number, task in enumerate(TASKS):
        shades.written(tmp_path / "data" / task, number, train=8, test=2)
    return tmp_path / "data"


def test_eight_tasks_in_the_papers_order_and_strengths_found_alike(data: Path, tmp_path: Path) -> None:
    found = experiment(data, size=8, epochs=1, cache=str(tmp_path / "cache"))
    assert isinstance(found, Experiment)
    assert [task.name for task in found.tasks] == list(TASKS)
    assert tuple(found.methods) == METHODS
    assert set(METHODS) == set(TITLES)
    assert found.tuning is not None
    assert (found.tuning.fixed, found.tuning.search) == ({}, Search(drop=0.05, factor=0.25, most=4))
    runs = run(found, ["finetune", "mas"], [0], tmp_path / "r")["runs"]
    assert [each["strength"] is None for each in runs] == [True, False]
    assert len(list((tmp_path / "cache").iterdir())) == 2 * 8  # a file for each part


@pytest.mark.parametrize("rise", [False, True])
def test_a_search_that_rises_is_asked_for_and_recorded(data: Path, tmp_path: Path, rise: bool) -> None:
    found = experiment(data, rise=rise, size=8, cache=str(tmp_path / "cache"))
    assert isinstance(found, Experiment)
    assert found.tuning is not None
    assert found.tuning.search.rise is rise
    assert ("--rise" in found.arguments) is rise


def test_a_method_that_measures_nothing_is_refused_before_anything_is_written(data: Path, tmp_path: Path) -> None:
    found = experiment(data, omega="test", size=8, epochs=1, cache=str(tmp_path / "cache"))
    assert isinstance(found, Experiment)
    with pytest.raises(ForgetlessError):
        run(found, ["mas", "ewc"], [0], tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_pairs_and_omega(data: Path, tmp_path: Path) -> None:
    suite = experiment(data, pairs=True, omega="both", size=8, epochs=1, cache=str(tmp_path / "cache"))
    assert isinstance(suite, Suite)
    assert tuple(suite.experiments) == PAIRS
    one = suite.experiments["scenes-birds"]
    assert [task.name for task in one.tasks] == ["scenes", "birds"]
    assert one.create("mas").settings()["source"] == "both"
    assert len(list((tmp_path / "cache").iterdir())) == 2 * 3


def refusal(data: Path, **options: object) -> str:
    with pytest.raises(ForgetlessError) as caught:
        experiment(data, **options)
    return str(caught.value)


def test_bad_input(data: Path, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    assert refusal(tmp_path / "x", cache=cache) == (
        f"{tmp_path}/x is no folder; --data takes the one that holds {', '.join(TASKS)}."
    )
    assert refusal(data, network="alexnet") == "network must be 'squeezenet' or 'efficientnet-lite0', not 'alexnet'."
    assert refusal(data, omega="all") == "omega must be 'train', 'test' or 'both', not 'all'."
    shutil.rmtree(data / "birds")
    shutil.rmtree(data / "cars")
    assert refusal(data, cache=cache) == (
        f"{data} lacks birds, cars: each is a folder with train.parquet and test.parquet, or with train/CLASS/ and "
        "test/CLASS/; `forgetless data where birds` says what it holds and how to get it."
    )
    (data / "scenes" / "test" / "dark" / "0.png").write_bytes(b"no picture")
    said = refusal(data, pairs=True, cache=cache)
    assert said.startswith(f"{data} lacks birds:")
    shutil.copytree(data / "flowers", data / "birds")
    said = refusal(data, pairs=True, cache=cache)
    assert said.startswith(f"{data}/scenes/test/dark/0.png is no picture that can be read: ")
    with pytest.warns(UserWarning, match="left out 1 of 4 pictures"):
        experiment(data, pairs=True, size=8, skip_bad=True, cache=cache)
