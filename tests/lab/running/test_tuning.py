from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from forgetless.errors import ForgetlessError
from forgetless.files import read_sealed, write_sealed
from forgetless.lab.published.de_lange_2021 import STARTS
from forgetless.lab.running.experiment import Experiment
from forgetless.lab.running.run import run
from forgetless.lab.running.search import Search
from forgetless.lab.running.tuning import Tuning
from forgetless.learn import methods
from forgetless.learn.heads import MultiHead
from forgetless.learn.position import Progress
from forgetless.learn.recipe import Recipe
from streams import network, stream

RECIPE = Recipe(lr=0.1, epochs=2, batch_size=24)
TASKS = stream(3)


def test_a_strength_is_found_on_the_second_task_alone_and_kept(tmp_path: Path) -> None:
    tuning = Tuning(Search(drop=0.05, factor=0.25, most=3))
    method = methods.create("mas")
    found = tuning.strength(method, network, TASKS[:2], RECIPE, tmp_path)
    held = read_sealed(tmp_path / "mas.json")
    strengths = [trial["strength"] for trial in held["trials"]]
    assert strengths == [0.0, 3.0, 0.75, 0.1875][: len(strengths)]
    assert found == strengths[-1]
    assert (held["drop"], held["factor"], held["most"]) == (0.05, 0.25, 3)
    assert method.state() == {}  # the method that was asked for is untouched

    def fails(seed: int) -> MultiHead:
        raise AssertionError("it was sought again")

    assert tuning.strength(method, fails, TASKS, RECIPE, tmp_path) == found
    other = tmp_path / "other"  # the third task plays no part
    assert tuning.strength(method, network, TASKS, RECIPE, other) == found
    assert read_sealed(other / "mas.json") == held


@pytest.mark.parametrize("held", [{}, {"strength": "x"}])
def test_a_strength_that_is_damaged_or_of_another_search(tmp_path: Path, held: dict[str, Any]) -> None:
    path = tmp_path / "mas-found.json"
    write_sealed(path, held)
    with pytest.raises(ForgetlessError) as caught:
        Tuning().strength(methods.create("mas"), network, TASKS, RECIPE, tmp_path)
    assert str(caught.value) == f"{path} does not hold a strength that was found; remove it."
    write_sealed(path, {"strength": 1, "seed": 1, **dataclasses.asdict(Search())})
    with pytest.raises(ForgetlessError) as caught:
        Tuning().strength(methods.create("mas"), network, TASKS, RECIPE, tmp_path)
    assert str(caught.value) == f"{path} was found by another search; remove it, or choose another --out."


def test_a_search_that_rises_ends_no_lower_than_one_that_falls(tmp_path: Path) -> None:
    found = {
        rise: Tuning(Search(drop=0.9, factor=0.25, most=3, rise=rise)).strength(
            methods.create("mas"), network, TASKS[:2], RECIPE, tmp_path / str(rise)
        )
        for rise in (False, True)
    }
    assert (found[False], found[True]) == (3.0, 192.0)  # nine tenths may be lost: every strength is accepted
    assert json.loads((tmp_path / "True" / "mas-found.json").read_text())["rise"] is True


def test_the_test_samples_play_no_part(tmp_path: Path) -> None:
    tuning = Tuning(Search(drop=0.05, factor=0.25, most=3))
    blind = [dataclasses.replace(task, test=(torch.zeros_like(task.test[0]), task.test[1])) for task in TASKS]
    tuning.strength(methods.create("ewc"), network, TASKS, RECIPE, tmp_path / "a")
    tuning.strength(methods.create("ewc"), network, blind, RECIPE, tmp_path / "b")
    assert (tmp_path / "a" / "ewc.json").read_text() == (tmp_path / "b" / "ewc.json").read_text()


def test_what_is_not_searched_for(tmp_path: Path) -> None:
    tuning = Tuning(fixed={"mas": 1.0})
    assert tuning.strength(methods.create("mas", 7.0), network, TASKS, RECIPE, tmp_path) == 1.0
    assert tuning.strength(methods.create("finetune"), network, TASKS, RECIPE, tmp_path) is None
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ForgetlessError) as caught:
        tuning.strength(methods.create("si"), network, TASKS[:1], RECIPE, tmp_path)
    assert str(caught.value) == "tuning a strength needs at least two tasks; pass --strength."


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"drop": 1.5}, "drop must be a share in [0, 1), not 1.5."),
        ({"factor": 1.0}, "factor must be between 0 and 1, not 1.0."),
        ({"most": 0}, "most must be 1 or more trials, not 0."),
        ({"start": -1.0}, "start must be a finite strength above 0, not -1.0."),
    ],
)
def test_settings_of_no_search_are_refused_before_anything_runs(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ForgetlessError) as caught:
        Search(**settings)
    assert str(caught.value) == sentence


def test_every_start_is_of_a_method_that_takes_a_strength() -> None:
    assert all(methods.create(name).strength is not None for name in STARTS)


def test_a_run_uses_one_strength_for_every_seed_and_a_given_one_instead(tmp_path: Path) -> None:
    experiment = Experiment("small", TASKS, network, RECIPE, tuning=Tuning(Search(drop=0.05, factor=0.25, most=2)))
    found = run(experiment, ["mas"], [0, 1], tmp_path / "r")["runs"]
    mas = [each["strength"] for each in found if each["method"] == "mas"]
    assert mas[0] == mas[1]
    assert mas[0] in (3.0, 0.75)
    assert {path.name for path in (tmp_path / "r" / "strengths").iterdir()} == {"mas.json", "mas-found.json"}
    config = json.loads((tmp_path / "r" / "config.json").read_text())
    assert config["tuning"]["search"]["most"] == 2
    given = run(experiment, ["mas"], [0], tmp_path / "g", strength=0.5)["runs"]
    assert given[0]["strength"] == 0.5
    assert not (tmp_path / "g" / "strengths").exists()


@pytest.mark.parametrize("strength", [None, "search"])
def test_the_trials_of_a_search_are_told_as_progress_of_their_task(tmp_path: Path, strength: str | None) -> None:
    tuning = Tuning(Search(drop=0.05, factor=0.25, most=2))
    experiment = Experiment("small", TASKS, network, RECIPE, tuning=tuning)
    told: list[Progress] = []
    run(experiment, ["mas"], [0], tmp_path, strength=strength, on_progress=lambda job, progress: told.append(progress))
    trials = [each for each in told if each.phase == "search"]
    assert {each.task for each in trials} == ({2} if strength is None else {2, 3})
    assert trials[0].name.startswith(f"{TASKS[1].name}: λ = 0 gave ")
    assert trials[1].name.startswith(f"{TASKS[1].name}: λ = 3 gave ")
