"""What LwF and EBLL hold the answers to, against the formula written out sample by sample."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from forgetless.learn.classification import classification
from forgetless.learn.heads import SCENARIOS, MultiHead
from forgetless.learn.methods.lwf import LwF

TEMPERATURE = 2.0


def network(scenario: str, tasks: int) -> MultiHead:
    torch.manual_seed(0)
    model = MultiHead(nn.Sequential(nn.Linear(4, 5), nn.Tanh()), 5, scenario=scenario).double()
    for number in range(tasks):
        model.grow(f"task {number}", 3)
    return model


def softmax(scores: list[float]) -> list[float]:
    powers = [math.exp(score / TEMPERATURE) for score in scores]
    return [power / math.fsum(powers) for power in powers]


def divergence(old: list[float], new: list[float]) -> float:
    """KL of the old probabilities, followed by zeros where there are new classes, from the new ones."""
    padded = [*softmax(old), *[0.0] * (len(new) - len(old))]
    return math.fsum(p * (math.log(p) - math.log(q)) for p, q in zip(padded, softmax(new), strict=True) if p)


def reference(before: MultiHead, model: MultiHead, inputs: Tensor) -> float:
    """The mean over samples of the sum over old tasks."""
    rows = []
    for sample in inputs:
        for number in range(2):
            name = f"task {number}"
            new = model.head(name)(model.backbone(sample)).tolist()
            old = before.head(name)(before.backbone(sample)).tolist()
            if model.scenario == "class":
                old = old[:6]  # the classes of the two old tasks
            rows.append(divergence(old, new))
    return math.fsum(rows) / len(inputs)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_penalty_is_the_formula_with_a_term_for_every_old_task(scenario: str) -> None:
    model = network(scenario, 3)
    before = copy.deepcopy(model)
    inputs = torch.randn(7, 4, dtype=torch.float64)
    labels = torch.zeros(7, dtype=torch.int64)
    task = classification("task 2", ("a", "b", "c"), (inputs, labels), (inputs, labels))
    method = LwF(0.7, TEMPERATURE)
    method.begin(model, task, torch.optim.SGD(model.parameters(), 0.1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)

    model(inputs, "task 2")  # the loop's own pass
    penalty = method.penalty((inputs, labels))

    assert penalty is not None
    assert penalty.item() == pytest.approx(0.7 * reference(before, model, inputs), rel=1e-12)
