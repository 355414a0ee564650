"""The study of what keeping costs, on a small network and small tasks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from forgetless import KeepAgreement
from forgetless.lab import results
from forgetless.lab.running.experiment import Experiment
from forgetless.learn.methods.mas import MAS
from forgetless.learn.metrics import forgetting_mas
from forgetless.learn.recipe import Recipe
from forgetless.learn.train import learn
from streams import network, stream
from studies import plasticity
from studies.plasticity import VARIANTS, Studied, main, study

STREAM = stream(3)
RECIPE = Recipe(0.1, 2, 24)
EXPERIMENT = Experiment("small", STREAM, lambda seed: network(seed, pretrained=True), RECIPE)


def learned(method: MAS) -> dict[str, torch.Tensor]:
    learn(network(0, pretrained=True), STREAM, method, RECIPE, seed=0)
    assert method._anchor is not None
    return method._anchor.importance


def test_nothing_changed_is_mas() -> None:
    plain, studied = learned(MAS(1.0)), learned(Studied(1.0))
    assert all(torch.equal(plain[name], studied[name]) for name in plain)


def test_old_importance_is_halved_at_every_task() -> None:
    """With the pull off, tasks' Ω can be taken one by one."""
    summed = []

    class Noted(Studied):
        def measure(self, model, task):  # type: ignore[no-untyped-def]
            summed.append(super().measure(model, task).mean())
            return super().measure(model, task)

    kept = learned(Noted(0.0, gamma=0.5))
    for name, importance in kept.items():
        expected = summed[0][name] / 4 + summed[1][name] / 2 + summed[2][name]
        torch.testing.assert_close(importance, expected)


def test_every_tasks_importance_is_of_the_first_ones_sum() -> None:
    sums = []

    class Noted(Studied):
        def measure(self, model, task):  # type: ignore[no-untyped-def]
            found = super().measure(model, task)
            sums.append(sum(float(each.sum()) for each in found.mean().values()))
            return found

    learned(Noted(1.0, alike=True))
    assert sums == pytest.approx([sums[0]] * 3, rel=1e-5)


def test_what_is_frozen_before_each_task_is_noted() -> None:
    found = study(EXPERIMENT, {"strength": 1e6})
    assert len(found["frozen fraction"]) == len(STREAM)
    assert found["frozen fraction"][0] == {"all": 0.0}
    assert found["frozen fraction"][2]["all"] > 0.5
    assert found["accuracy"][-1][-1] is not None
    for settings in VARIANTS.values():
        Studied(**{name: value for name, value in settings.items() if name != "unseen"})


def test_unseen_pictures_are_neither_learned_from_nor_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plasticity, "_PROBES", 10)
    task, probes = plasticity._apart(STREAM[0])
    inputs, labels = STREAM[0].train
    assert len(probes) == 10
    assert torch.equal(torch.cat([task.train[0], probes])[:, 0].sort().values, inputs[:, 0].sort().values)
    assert set(task.train[1].tolist()) == set(labels.tolist())
    assert not (task.train[0][:, None] == probes[None]).flatten(2).all(-1).any()
    seen = []

    class Noted(Studied):
        def _agreement(self, target: float) -> KeepAgreement:
            seen.append(dict(self._old))
            return super()._agreement(target)

    monkeypatch.setattr(plasticity, "Studied", Noted)
    study(EXPERIMENT, {"strength": 1.0, "target": 0.9, "unseen": True})
    assert torch.equal(seen[0][STREAM[0].name], probes)


def test_a_target_moves_the_strength_by_the_answers_under_old_heads() -> None:
    recipe = dataclasses.replace(RECIPE, epochs=40)
    experiment = dataclasses.replace(EXPERIMENT, recipe=recipe)
    dials = []

    class Noted(Studied):
        def _agreement(self, target: float) -> KeepAgreement:
            dials.append(super()._agreement(target))
            return dials[-1]

    probes = {STREAM[0].name: STREAM[0].test[0][:20]}  # and the second task's are 100 that were learned from, or all
    learn(experiment.network(0), STREAM, Noted(strength=1e-4, target=1.0, probes=probes), recipe, seed=0)
    assert [len(dial._probes) for dial in dials] == [20, 20 + min(100, len(STREAM[1].train[1]))]  # type: ignore[arg-type]
    assert all(dial.history for dial in dials)
    assert max(seen.strength for dial in dials for seen in dial.history) > 1e-3
    loose = study(experiment, {"strength": 1e-4})
    held = study(experiment, {"strength": 1e-4, "target": 1.0})
    assert forgetting_mas(held["accuracy"]) < forgetting_mas(loose["accuracy"])


def test_what_is_there_is_kept_and_the_rest_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def counted(experiment: Experiment, settings: Mapping[str, Any], seed: int) -> dict[str, Any]:
        made.append(seed)
        return study(experiment, settings, seed)

    monkeypatch.setattr(plasticity, "VARIANTS", {"plain": {"strength": 1.0}, "halved": {"strength": 1.0, "gamma": 0.5}})
    monkeypatch.setattr(plasticity, "study", counted)
    monkeypatch.setattr(plasticity.eight_tasks.EightTasks, "build", lambda self: EXPERIMENT)
    out = tmp_path / "p.json"
    main(["--data", str(tmp_path), "--out", str(out), "--seeds", "1"])
    first = results.read(out)
    main(["--data", str(tmp_path), "--out", str(out), "--seeds", "2"])
    found = results.read(out)
    assert made == [0, 0, 1, 1]
    assert found["runs"][:2] == first["runs"]
    plain, halved = results.summarize(found).methods
    assert (plain.label, plain.seeds, halved.label, halved.seeds) == ("plain", (0, 1), "halved", (0, 1))
    assert found["runs"][0]["frozen fraction"] != found["runs"][1]["frozen fraction"]


def test_a_folder_without_the_sets_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--data", str(tmp_path / "none"), "--out", str(tmp_path / "p.json")])
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith(
        f"forgetless: {tmp_path / 'none'} is no folder; --data takes the one that "
    )
    assert not (tmp_path / "p.json").exists()
