"""Runs copied to where the pages look for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from forgetless.errors import ForgetlessError
from forgetless.lab import results
from forgetless.lab.running.experiment import Experiment
from forgetless.lab.running.run import run, run_all
from forgetless.learn.recipe import Recipe
from streams import network, stream
from studies.collect import collect

EXPERIMENT = Experiment("small", stream(2), network, Recipe(lr=0.1, epochs=2, batch_size=24), {"options": {"x": 1}})


def test_one_file_holds_the_config_and_the_results(tmp_path: Path) -> None:
    found = run(EXPERIMENT, ["finetune"], [0], tmp_path / "run")
    (path,) = collect(tmp_path / "run", "small/one", tmp_path / "results", "Clouds.")
    assert path == tmp_path / "results" / "small" / "one.json"
    held = results.read(path)
    assert {key: held[key] for key in found} == found
    assert held["data"] == "Clouds."
    assert held["config"]["options"] == {"x": 1}
    assert held["budget"] == {"epochs": 2, "steps": 4}


@pytest.mark.parametrize(("name", "files"), [("small/one", ["one-a", "one-b"]), ("small/", ["a", "b"])])
def test_each_part_of_a_suite_gets_a_file(name: str, files: list[str], tmp_path: Path) -> None:
    run_all({"a": EXPERIMENT, "b": EXPERIMENT}, ["finetune"], [0], tmp_path / "run")
    written = collect(tmp_path / "run", name, tmp_path / "results")
    assert written == [tmp_path / "results" / "small" / f"{each}.json" for each in files]


@pytest.mark.parametrize("name", ["λ 1", "a/b/c", "../x", "A"])
def test_names_are_plain(name: str, tmp_path: Path) -> None:
    with pytest.raises(ForgetlessError, match="is no name of results"):
        collect(tmp_path, name, tmp_path)
    with pytest.raises(ForgetlessError, match="holds no results"):
        collect(tmp_path, "a/b", tmp_path)
