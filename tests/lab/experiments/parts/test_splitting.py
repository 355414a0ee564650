"""Sets that are split into tasks, and the experiments on them, on small trees in the layout of the originals."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import layouts
from forgetless.errors import ForgetlessError
from forgetless.lab.datasets import CATALOG
from forgetless.lab.experiments import split_cifar100, split_tiny_imagenet
from forgetless.lab.experiments.parts.splitting import split
from forgetless.lab.running.experiment import Suite
from forgetless.lab.running.run import run_all
from forgetless.learn.classification import classes_of
from layouts import picture


def shrink(monkeypatch: pytest.MonkeyPatch, name: str, classes: int) -> None:
    entry = dataclasses.replace(CATALOG[name], classes=classes, train=2 * classes, test=classes)
    monkeypatch.setitem(CATALOG, name, entry)


def one_of(suite: Suite):
    (experiment,) = suite.experiments.values()
    return experiment


def test_cifar100_in_five_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layouts.cifar100(tmp_path, monkeypatch)
    shrink(monkeypatch, "cifar100", 100)
    found = one_of(split_cifar100.SplitCIFAR100(data=tmp_path, epochs=1, depth=10, cache=tmp_path / "cache").build())
    assert [task.name for task in found.tasks][::4] == ["classes 1 to 20", "classes 81 to 100"]
    assert classes_of(found.tasks[1])[0] == "kind 20"
    assert found.tasks[1].train[0].shape == (40, 3, 32, 32)
    assert found.tasks[1].test[0][0].unique().tolist() == [20]  # the first picture of class 20, labeled 0
    assert found.tasks[1].test[1].tolist() == [*range(20)]
    assert (found.settings["mas"], found.settings["er"]) == ({"strength": 10.0}, {"memory": 6})


def test_a_slice_of_any_set_runs_and_prints_its_table(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for label in range(41):
            picture(tmp_path / "own" / part / f"{label:02}" / "a.png", 5 * label, (32, 32))
    suite = split_cifar100.SplitCIFAR100(
        data=tmp_path / "own", tasks=2, epochs=1, depth=10, cache=tmp_path / "cache"
    ).build()
    results = run_all(suite.experiments, ["finetune", "mas"], [0], tmp_path / "run")
    text = suite.table(results)
    assert "| mas | 10 | 64.77 ± 0.78 | " in text
    assert "| finetune | – | 30.53 | " in text


def test_tiny_imagenet_is_split_in_an_order_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layouts.tiny_imagenet(tmp_path, 40)
    shrink(monkeypatch, "tiny-imagenet", 40)
    found = one_of(
        split_tiny_imagenet.SplitTinyImageNet(data=tmp_path, tasks=2, epochs=1, cache=tmp_path / "cache").build()
    )
    again = one_of(
        split_tiny_imagenet.SplitTinyImageNet(data=tmp_path, tasks=2, epochs=1, cache=tmp_path / "cache").build()
    )
    classes = [name for task in found.tasks for name in classes_of(task)]
    assert classes == [name for task in again.tasks for name in classes_of(task)]
    assert len(set(classes)) == 40
    assert classes != sorted(classes)
    assert classes != sorted(classes, reverse=True)
    for task in found.tasks:  # a picture's shade tells its class
        shades = (task.test[0][:, 0, 0, 0].int() + 5) // 10 % 26
        kinds = [int(classes_of(task)[label][1:]) for label in task.test[1].tolist()]
        assert len(kinds) == 20
        assert all(abs(int(shade) - kind) <= 1 for shade, kind in zip(shades, kinds, strict=True) if kind < 25)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ForgetlessError) as caught:
        split_tiny_imagenet.SplitTinyImageNet(data=tmp_path).build()
    assert str(caught.value) == (
        f"{tmp_path} lacks Tiny ImageNet: tiny-imagenet-200/ with train/, val/ and wnids.txt, as tiny-imagenet-200.zip "
        f"unpacks; `forgetless data fetch tiny-imagenet --root {tmp_path}` downloads it (http://cs231n.stanford.edu/)."
    )
    for part in ("train", "test"):
        for label in range(3):
            picture(tmp_path / part / f"{label}" / "a.png")
    with pytest.raises(ForgetlessError) as caught:
        split("cifar100", tmp_path, 2, 8, tasks=2)
    assert str(caught.value) == f"{tmp_path} has 3 classes, which is 1 tasks of 2 and not 2."
