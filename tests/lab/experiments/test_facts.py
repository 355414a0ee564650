"""The experiment on facts, from end to end on a small set of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fact_sets import FACTS, own, trained
from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.lab import results
from forgetless.lab.experiments import create
from forgetless.lab.experiments.demo import Scale
from forgetless.lab.experiments.facts import METHODS
from forgetless.lab.experiments.parts import facts
from forgetless.lab.kept import KEPT
from forgetless.lab.running.experiment import Experiment
from forgetless.lab.running.run import run
from forgetless.learn import optimizers
from forgetless.learn.heads import MultiHead
from forgetless.learn.position import Progress

FIGURES = {"all facts", "recall@1", "recall@5", "unseen facts", "unseen subjects"}


def small(name: str) -> MultiHead:
    """In the place of a pretrained network."""
    if name != "squeezenet":
        raise ForgetlessError(f"there is no network {name!r}.")
    torch.manual_seed(0)
    backbone = nn.Sequential(Scale(), nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return MultiHead(backbone, 4, pretrained=True)


def experiment(folder: Path, **options: Any) -> Experiment:
    given = {"data": folder / "facts", "size": 8, "epochs": 1, "held_out": 1, "cache": str(folder / "cache"), **options}
    found = create("facts", **given).build()
    assert isinstance(found, Experiment)
    return found


def test_what_is_compared_and_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "pretrained", small)
    own(tmp_path / "facts")
    found = experiment(tmp_path, epochs=7)
    assert [task.name for task in found.tasks] == [f"facts {number}" for number in (1, 2, 3, 4)]
    assert tuple(found.methods) == METHODS
    recipe = found.recipe
    assert (recipe.lr, recipe.epochs, recipe.batch_size, recipe.optimizer) == (2e-4, 7, 32, optimizers.adam)
    assert found.tuning is not None
    assert found.tuning.fixed == {"mas": 5.0}
    assert found.config["data"] == "own"
    assert found.config["options"]["split"] == "random"
    assert found.arguments[:2] == ["--data", "facts"]
    tuned = experiment(tmp_path, tune=True)
    assert tuned.tuning is not None
    assert tuned.tuning.fixed == {}
    assert "--tune" in tuned.arguments


def test_it_runs_is_killed_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "pretrained", small)
    own(tmp_path / "facts")
    found = experiment(tmp_path)

    def stop(job: object, progress: Progress) -> None:
        if (progress.task, progress.phase) == (3, "train"):
            raise KeyboardInterrupt

    whole = run(found, ["mas"], [0], tmp_path / "whole")["runs"]
    with pytest.raises(KeyboardInterrupt):
        run(found, ["mas"], [0], tmp_path / "r", on_progress=stop)
    assert not (tmp_path / "r" / "kept").exists()
    again = run(found, ["mas"], [0], tmp_path / "r", resume=True)["runs"]
    for name in ("accuracy", "figures", "strength"):
        assert [each[name] for each in again] == [each[name] for each in whole]
    kept = [(tmp_path / place / "kept" / "mas-0.safetensors").read_bytes() for place in ("whole", "r")]
    assert kept[0] == kept[1]


def test_a_run_with_what_it_keeps() -> None:
    folder = trained() / "run"
    found = results.read(folder)
    assert [(each["method"], each["seed"], each["strength"]) for each in found["runs"]] == [
        ("finetune", 3, None),
        ("mas", 3, 5.0),
    ]
    assert {path.name for path in folder.iterdir()} >= {"results.json", "kept", "retrieval.html"}
    for each in found["runs"]:
        assert all(entry is not None for row in each["accuracy"] for entry in row)
        assert set(each["figures"]) == FIGURES
        assert all(len(values) == 4 and 0 <= min(values) <= max(values) <= 1 for values in each["figures"].values())


@pytest.mark.parametrize("method", ["finetune", "mas"])
def test_the_figures_are_those_of_what_is_kept(method: str) -> None:
    sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    folder = trained() / "run"
    found = next(each for each in results.read(folder)["runs"] if each["method"] == method)
    tensors, header = files.read_tensors(folder / "kept" / f"{method}-3.safetensors", KEPT)
    similar, labels = (tensors["pictures"] @ tensors["facts"].T).double().numpy(), tensors["labels"].numpy()
    assert len(header["facts"]) == len(FACTS)
    every = [sklearn.average_precision_score(labels == fact, similar[:, fact]) for fact in sorted(set(labels.tolist()))]
    assert found["figures"]["all facts"][-1] == pytest.approx(sum(every) / len(every), abs=1e-5)
    top = similar.argsort(1)[:, ::-1]
    for k in (1, 5):
        hits = (top[:, :k] == labels[:, None]).any(1).mean()
        assert found["figures"][f"recall@{k}"][-1] == pytest.approx(hits)
    for task, row in zip(header["tasks"], found["accuracy"][-1], strict=True):
        mine = [label in task["facts"] for label in labels.tolist()]
        own_task = [
            sklearn.average_precision_score(labels[mine] == fact, similar[mine, fact]) for fact in task["facts"]
        ]
        assert row == pytest.approx(sum(own_task) / len(own_task), abs=1e-5)
    assert tensors["top_facts"].shape == (4, len(tensors["shown"]), 5)
    shown = tensors["shown"].numpy()
    assert tensors["top_facts"][-1].tolist() == top[shown, :5].tolist()


def test_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "pretrained", small)
    with pytest.raises(ForgetlessError, match=r"^split must be 'random' or 'semantic', not 'x'\.$"):
        experiment(tmp_path, split="x")
    with pytest.raises(ForgetlessError, match=r"^held_out must be at least 0, not -1\.$"):
        experiment(tmp_path, held_out=-1)
    with pytest.raises(ForgetlessError, match=r"^lr must be above 0, not 0\.0\.$"):
        experiment(tmp_path, lr=0.0)
    with pytest.raises(ForgetlessError, match=r"facts holds no facts: neither train\.parquet and test\.parquet with"):
        experiment(tmp_path)


def test_a_network_that_is_not_there_is_told_before_pictures_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "pretrained", small)
    with pytest.raises(ForgetlessError, match=r"^there is no network 'efficientnet-lite0'\.$"):
        experiment(tmp_path, network="efficientnet-lite0")
