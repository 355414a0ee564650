"""The study of batch-norm statistics on a small network and two small tasks."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from forgetless.learn.classification import classification
from forgetless.learn.heads import MultiHead
from forgetless.learn.task import Task
from studies import norm_statistics as study


def network() -> MultiHead:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU())
    return MultiHead(backbone, 16, pretrained=True)


def task(name: str, shift: float) -> Task:
    generator = torch.Generator().manual_seed(len(name))
    inputs = torch.randn(160, 6, generator=generator) + shift
    labels = (inputs[:, 0] + inputs[:, 1] > 2 * shift).long()
    return classification(name, ("a", "b"), (inputs[:100], labels[:100]), (inputs[100:], labels[100:]))


def test_held_statistics_stay_and_moved_ones_can_be_put_back() -> None:
    recipe = dataclasses.replace(study.RECIPE, lr=0.05, epochs=4)
    found = study.study(task("old", 0.0), task("newer", 4.0), network, 3, recipe)
    runs = found["runs"]
    assert list(runs) == list(study.RUNS)
    for name, (_, held) in study.RUNS.items():
        if held:  # nothing is there to be put back
            assert runs[name]["old"] == runs[name]["put back"]
    moved = runs["fine-tuning"]
    assert moved["old"] < found["before"] - 0.1  # the inputs' mean moved by 4, and the statistics with it
    assert moved["put back"] > moved["old"] + 0.1
    share = study.explained({"old → newer": [found]})
    assert share == (moved["put back"] - moved["old"]) / (found["before"] - moved["old"])
    text = study.table({"old → newer": [found]})
    assert text.count("\n| old → newer: ") == 4
    assert text.endswith(f"account for {100 * share:.0f} % of what fine-tuning forgets.")


def test_nothing_forgotten_has_no_share() -> None:
    run = {"old": 0.9, "put back": 0.9, "new": 0.5}
    found = {"a → b": [{"before": 0.9, "seed": 0, "runs": dict.fromkeys(study.RUNS, run)}]}
    assert study.explained(found) is None
    assert study.table(found).endswith("account for no forgetting.")
