from __future__ import annotations

from pathlib import Path

import pytest

import shades
from forgetless.lab.experiments import create, sequence
from forgetless.lab.running.experiment import Experiment
from forgetless.lab.running.run import run


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    """Three sets of two classes, and a small network."""
    monkeypatch.setattr(sequence, "pretrained", lambda name: shades.small())
    names = enumerate(("first", "second", "third"))
    folders = [shades.written(tmp_path / name, number, train=16, test=2, side=32) for number, name in names]
    found = create("sequence", tasks=folders, size=32, epochs=2, batch_size=8).build()
    assert isinstance(found, Experiment)
    return found


def strengths(found: dict[str, object]) -> dict[str, float | None]:
    runs = found["runs"]
    assert isinstance(runs, list)
    return {each["method"]: each["strength"] for each in runs}


def test_methods_that_anchor_find_their_own_strength(experiment: Experiment, tmp_path: Path) -> None:
    found = run(experiment, ["finetune", "mas", "mas+er", "lwf"], [0], tmp_path / "r")
    settings = {each["method"]: each["settings"] for each in found["runs"]}
    assert (settings["mas"]["strength"], settings["mas+er"]["mas.strength"]) == ("auto", "auto")
    told = strengths(found)
    assert (told["finetune"], told["lwf"]) == (None, 1.0)
    for name in ("mas", "mas+er"):  # what the last task's training came to
        assert told[name] not in (None, 0.0, 1.0)


def test_a_number_is_taken_as_it_is_and_a_search_begins_with_one(experiment: Experiment, tmp_path: Path) -> None:
    found = run(experiment, ["mas"], [0], tmp_path / "given", strength=0.5)
    assert (found["runs"][0]["settings"]["strength"], strengths(found)["mas"]) == (0.5, 0.5)
    (searched,) = run(experiment, ["mas"], [0], tmp_path / "searched", strength="search")["runs"]
    assert searched["settings"]["strength"] == 1.0
    assert len(searched["strengths"]) == 3
