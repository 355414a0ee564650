"""The experiment `online`: its streams, and runs that are killed and resumed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import layouts
from forgetless.errors import ForgetlessError
from forgetless.lab import results
from forgetless.lab.datasets import CATALOG
from forgetless.lab.experiments import create
from forgetless.lab.experiments.online import METHODS, RATES, STREAMS, OnlineStream
from forgetless.lab.running.experiment import Experiment
from forgetless.lab.running.jobs import Job
from forgetless.lab.running.run import run
from forgetless.lab.traces import read
from forgetless.learn.classification import classes_of
from forgetless.learn.online_learners import LEARNERS
from forgetless.learn.position import Progress


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for part, count in (("train", 12), ("test", 4)):
        for label in range(4):
            for number in range(count):
                place = tmp_path / "own" / part / f"kind {label}" / f"{number}.png"
                layouts.picture(place, 60 * label + number, (32, 32))
    return tmp_path / "own"


def built(data: Path, **options: Any) -> Experiment:
    given = {"network": "three-layers", "batch_size": 8, "buffer": 10, "replay": 8, "glances": 2, "stream": "mnist10k"}
    return OnlineStream(data=data, cache=data.parent / "cache", **(given | options)).build()


def test_it_runs_and_goes_on_to_the_same_bits_after_ctrl_c(pictures: Path, tmp_path: Path) -> None:
    experiment = built(pictures, lr=0.05, meta_every=1, look=2)
    names = ["er", "mango"]
    whole = run(experiment, names, [0], tmp_path / "whole")
    batches = 0

    def press(job: Job, progress: Progress) -> None:
        nonlocal batches
        batches += progress.phase == "train"
        if batches == 10:  # in the second task of MANGO's run
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(experiment, names, [0], tmp_path / "cut", on_progress=press)
    assert [each["method"] for each in results.read(tmp_path / "cut")["runs"]] == ["er"]
    with pytest.raises(ForgetlessError, match="is unfinished: 1 of 2 runs are done"):
        run(experiment, names, [0], tmp_path / "cut")
    with pytest.raises(ForgetlessError, match=r"holds another experiment: .*buffer is 10 there and 11 here"):
        run(built(pictures, lr=0.05, meta_every=1, look=2, buffer=11), names, [0], tmp_path / "cut", resume=True)
    again = run(experiment, names, [0], tmp_path / "cut", resume=True)
    for one, other in zip(whole["runs"], again["runs"], strict=True):
        assert {**one, "seconds": None} == {**other, "seconds": None}
    online = whole["runs"][1]["online"]
    assert online["groups"] == ["layer1", "layer2", "layer3", "heads"]
    assert [len(scores) for _, scores in online["looks"]] == [1, 1, 2, 2]
    assert len(online["gates"]) == 2
    assert all(len(row) == 5 for row in online["lambdas"])
    page = (tmp_path / "whole" / "report.html").read_text(encoding="utf-8")
    assert "mango: λ of each group" in page
    assert "mango: gates after the last task" in page
    assert "How far the weights moved" in page
    left = [read(tmp_path / name, again["runs"]).runs for name in ("whole", "cut")]
    assert left[0] == left[1]


def test_rates_that_are_damaged_are_told(pictures: Path, tmp_path: Path) -> None:
    experiment = built(pictures)
    assert experiment.online is not None
    (tmp_path / "er.json").write_text("[0.1]")
    with pytest.raises(ForgetlessError, match=r"er\.json is damaged: its content must be an object, not \[0\.1\]"):
        experiment.online.rate("er", {}, experiment.network, experiment.tasks, tmp_path)


def test_each_method_has_a_rate_of_its_own_unless_one_is_given(pictures: Path, tmp_path: Path) -> None:
    experiment = built(pictures)
    assert experiment.online is not None
    assert experiment.online.rates == RATES
    found = run(experiment, ["finetune"], [0], tmp_path / "run")
    scores = json.loads((tmp_path / "run" / "rates" / "finetune.json").read_text(encoding="utf-8"))
    best = max(scores.values())
    assert found["runs"][0]["online"]["lr"] == min(float(rate) for rate, score in scores.items() if score == best)
    assert built(pictures, lr=0.3).online.rates == ()  # type: ignore[union-attr]


def test_the_rate_is_found_without_the_test_pictures(pictures: Path) -> None:
    experiment = built(pictures)
    online = experiment.online
    assert online is not None
    spoiled = [
        dataclasses.replace(task, test=(torch.zeros_like(task.test[0]), task.test[1])) for task in experiment.tasks
    ]
    one, other = (online.score("er", {}, experiment.network, tasks, 0.05) for tasks in (experiment.tasks, spoiled))
    assert one == other
    with pytest.raises(ForgetlessError, match="'er' diverges at every rate of 1e\\+30"):
        dataclasses.replace(online, rates=(1e30,)).rate("er", {}, experiment.network, experiment.tasks)


def test_settings_reach_the_methods(pictures: Path) -> None:
    plain, changed = (
        built(pictures, lr=0.1, **options).settings
        for options in ({}, {"gate": "magnitude", "groups": 6, "fixed": True, "stream_only": True, "kappa": 2.0})
    )
    assert plain["mango"]["gate"] == "signed"
    assert plain["mango"]["penalized"]
    assert plain["mango"]["meta"]
    assert changed["mango"] == {**plain["mango"], "gate": "magnitude", "groups": 6, "meta": False, "replayed": False}
    assert changed["mas-gated"]["kappa"] == 2.0
    only = built(pictures, lr=0.1, gate_only=True).settings["mango"]
    assert (only["penalized"], only["meta"]) == (False, False)
    assert tuple(LEARNERS) == METHODS == built(pictures, lr=0.1).methods


def test_cifar100_in_twenty_tasks_with_the_papers_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layouts.cifar100(tmp_path, monkeypatch)
    entry = dataclasses.replace(CATALOG["cifar100"], classes=100, train=200, test=100)
    monkeypatch.setitem(CATALOG, "cifar100", entry)
    found = OnlineStream(data=tmp_path, cache=tmp_path / "cache").build()
    assert len(found.tasks) == 20
    assert len(classes_of(found.tasks[0])) == 5
    assert found.online is not None
    budget = found.online.budget
    assert (budget.batch_size, budget.replay, budget.glances, budget.buffer, budget.momentum) == (32, 64, 3, 1000, 0.9)
    mango = found.settings["mango"]
    assert (mango["meta_every"], mango["meta_batch"], mango["meta_lr"]) == (3, 256, 2e-3)
    assert (STREAMS["tiny-imagenet"].meta_every, STREAMS["tiny-imagenet"].meta_lr) == (5, 1e-3)
    network = found.network(0)
    assert sum(each.numel() for each in network.backbone.parameters()) == 11_168_832


def test_clear_in_its_buckets(tmp_path: Path) -> None:
    for part in ("train", "test"):
        folder = tmp_path / "clear10" / part
        layouts.text(folder / "class_names.txt", "BACKGROUND", "bus", "camera")
        listed: dict[str, dict[str, str]] = {}
        for bucket in ("10", "2"):
            for name in ("BACKGROUND", "bus", "camera"):
                path = f"labeled_images/{bucket}/{name}/1.jpg"
                layouts.picture(folder / path, 10 * int(bucket))
                metadata = f"labeled_metadata/{bucket}/{name}.json"
                layouts.text(folder / metadata, json.dumps({"1": {"IMG_PATH": path, "ID": "1"}}))
                listed.setdefault(bucket, {})[name] = metadata
        layouts.text(folder / "labeled_metadata.json", json.dumps(listed))
    options = {"stream": "clear10", "size": 32, "lr": 0.1}
    found = built(tmp_path, **options)
    assert [task.name for task in found.tasks] == ["bucket 2", "bucket 10"]
    assert classes_of(found.tasks[0]) == ("bus", "camera")
    assert found.tasks[1].train[1].tolist() == [0, 1]
    assert found.network(0).scenario == "domain"  # type: ignore[attr-defined]
    with pytest.raises(ForgetlessError, match="the tasks of 'clear10' have the same classes"):
        built(tmp_path, **options, scenario="class")
    test = tmp_path / "clear10" / "test"
    layouts.text(test / "labeled_metadata" / "2" / "bus.json", '{"1": {"IMG_PATH": "../../x"}}')
    with pytest.raises(ForgetlessError, match="leads out of"):
        built(tmp_path, **options)
    layouts.text(test / "labeled_metadata" / "2" / "bus.json", '{"1": {}}')
    with pytest.raises(ForgetlessError, match="does not list pictures by their IMG_PATH"):
        built(tmp_path, **options)
    layouts.text(test / "labeled_metadata.json", '{"2": {"camera": "b.json"}}')
    with pytest.raises(ForgetlessError, match="names no file for the class 'bus' of bucket '2'"):
        built(tmp_path, **options)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"buffer": 0}, "buffer must be at least 1, not 0."),
        ({"glances": 0}, "glances must be at least 1, not 0."),
        ({"stream": "cifar10"}, "stream must be 'cifar100', 'tiny-imagenet'"),
        ({"gate": "abs"}, "gate must be 'signed', 'magnitude', 'half' or 'none', not 'abs'."),
    ],
)
def test_values_that_are_not_allowed(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ForgetlessError) as caught:
        create("online", data="x", **options)
    assert str(caught.value).startswith(sentence)


def test_offline_methods_and_strengths_are_refused(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ForgetlessError, match="there is no online method 'ewc'"):
        OnlineStream(data=pictures).refuse_methods(["er", "ewc"])
    with pytest.raises(ForgetlessError, match="there is no online method 'ewc'"):
        run(built(pictures, lr=0.1), ["ewc"], [0], tmp_path / "run")
    with pytest.raises(ForgetlessError, match="the experiment 'online' takes no strength"):
        run(built(pictures, lr=0.1), ["er"], [0], tmp_path / "run", strength=1.0)
    assert not (tmp_path / "run").exists()
