"""Incremental Moment Matching's merging is a special case of the methods here."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from forgetless import Importance, edit
from forgetless.edit.merging import METHODS
from forgetless.learn.classification import classification
from forgetless.learn.heads import MultiHead
from forgetless.learn.methods.imm_mean import IMMMean
from forgetless.learn.methods.imm_mode import IMMMode
from forgetless.learn.network import Network
from forgetless.learn.recipe import Recipe
from forgetless.learn.task import Task
from forgetless.learn.train import learn


def stream() -> list[Task]:
    draw = torch.Generator().manual_seed(0)
    tasks = []
    for name in ("one", "two", "three"):
        inputs = torch.randn(60, 4, generator=draw)
        labels = (inputs @ torch.randn(4, generator=draw) > 0).long()
        tasks.append(classification(name, ("a", "b"), (inputs[:40], labels[:40]), (inputs[40:], labels[40:])))
    return tasks


@pytest.mark.parametrize(("kind", "method"), [(IMMMean, "mean"), (IMMMode, "fisher")])
def test_it_merges_as_imm_does(kind: type[IMMMean] | type[IMMMode], method: str) -> None:
    """Its weights after three tasks are ours, made of the weights and the precision at the end of each."""
    ends: list[dict[str, Tensor]] = []
    found: list[dict[str, Tensor]] = []

    class Spied(kind):  # type: ignore[valid-type, misc]
        def precision(self, model: Network, task: Task) -> dict[str, Tensor]:
            ends.append({name: each.detach().clone() for name, each in model.backbone.named_parameters()})
            found.append(super().precision(model, task))
            return found[-1]

    torch.manual_seed(0)
    model = MultiHead(nn.Sequential(nn.Linear(4, 6), nn.ReLU()), 6)
    learn(model, stream(), Spied(0.0), Recipe(0.05, 2, 20), seed=1)
    importances, more = None, {}
    if method == "fisher":
        own = [{name.removeprefix("backbone."): each for name, each in one.items()} for one in found]
        importances = [Importance(one, 1, "fisher, expected labels") for one in own]
        more = {"scale_importance": "none"}
    got = edit.merged(ends, method=method, importances=importances, **more)
    for name, weights in model.backbone.named_parameters():
        torch.testing.assert_close(got[name], weights.detach(), rtol=1e-5, atol=1e-6)


def test_equal_importance_is_the_mean() -> None:
    versions = [torch.randn(5, 6, dtype=torch.float64) for _ in range(3)]
    told = METHODS["fisher"].told(3, (1.0, 2.0, 0.5))
    same = METHODS["fisher"].merge(versions, None, [torch.full((5, 6), 0.3, dtype=torch.float64)] * 3, told)
    mean = METHODS["mean"].merge(versions, None, None, METHODS["mean"].told(3, (1.0, 2.0, 0.5)))
    torch.testing.assert_close(same, mean, rtol=0, atol=1e-15)
