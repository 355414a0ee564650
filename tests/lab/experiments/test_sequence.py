from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from forgetless.lab.experiments import create, sequence
from forgetless.lab.experiments.demo import Scale
from forgetless.lab.running.experiment import Experiment
from forgetless.lab.running.run import run
from forgetless.learn.heads import MultiHead


def small(name: str) -> MultiHead:
    torch.manual_seed(0)
    backbone = nn.Sequential(Scale(), nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return MultiHead(backbone, 4, pretrained=True)


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    """Three sets of two classes, and a small network."""
    monkeypatch.setattr(sequence, "pretrained", small)
    folders = [tmp_path / "sets" / name for name in ("first", "second", "third")]
    for number, task in enumerate(folders):
        for split, count in (("train", 16), ("test", 2)):
            for label, kind in enumerate(("dark", "light")):
                folder = task / split / kind
                folder.mkdir(parents=True)
                for picture in range(count):
                    shade = 40 + 150 * label + 5 * picture + number
                    Image.new("RGB", (32, 32), (shade, shade, 10 * number)).save(folder / f"{picture}.png")
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
