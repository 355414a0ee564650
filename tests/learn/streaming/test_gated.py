"""The gate, the penalty and the meta step against autograd."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from forgetless.errors import ForgetlessError
from forgetless.learn.families.memory import Remembered
from forgetless.learn.heads import MultiHead
from forgetless.learn.online_learners import create
from forgetless.learn.streaming.budget import Budget
from forgetless.learn.streaming.gated import Gated
from forgetless.learn.task import Task
from online import classes
from streams import network


def prepared(
    name: str, tasks: list[Task], momentum: float = 0.9, **settings: Any
) -> tuple[MultiHead, Gated, torch.optim.SGD]:
    model = network(scenario="class").double()
    for task in tasks:
        task.objective.prepare(model, task.name)
    optimizer = torch.optim.SGD(model.parameters(), 0.07, momentum)
    learner = create(name, meta_every=1, meta_batch=12, start=-0.5, **settings)
    assert isinstance(learner, Gated)
    learner.begin(model, tasks, optimizer, Budget(0.07, 8, 1, 20, 6, momentum))
    return model, learner, optimizer


def parts(task: Task, start: int) -> Remembered:
    inputs, labels = task.train
    return Remembered(task.name, task.objective, (inputs[start : start + 8].double(), labels[start : start + 8]))


def gates(model: nn.Module, learner: Gated, kind: str) -> dict[str, Tensor]:
    """Written anew: σ(θ/std) over all parameters of a module together, or by the measured Ω."""
    if kind == "mas":
        return {name: 1 / (1 + 1.0 * ratio) for name, ratio in learner._ratios.items()}  # type: ignore[attr-defined]
    found = {}
    for name, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        if own:
            std = torch.cat([each.detach().flatten() for each in own.values()]).std(correction=0)
            for last, each in own.items():
                scaled = (each.detach().abs() if kind == "magnitude" else each.detach()) / std
                found[f"{name}.{last}"] = 1 / (1 + torch.exp(-scaled))
    return found


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [
        ("mango", "signed", {}),
        ("mango", "magnitude", {"gate": "magnitude"}),
        ("mango", "signed", {"groups": 2, "replayed": False}),
        ("mas-gated", "mas", {}),
    ],
)
def test_the_step_and_the_hypergradient_are_autograds(
    name: str, kind: str, settings: dict[str, Any], momentum: float
) -> None:
    """In float64, to 1e-10: the update in the second task, and ∂L/∂log λ through it, the momentum so far a constant."""
    tasks = classes(2)
    model, learner, optimizer = prepared(name, tasks, momentum, **settings)
    for number in range(3):
        learner.glance(parts(tasks[0], 8 * number % 16), number, True)
        learner.keep(parts(tasks[0], 8 * number % 16))
    assert learner._log.grad is None  # there is nothing to adapt in the first task
    learner.border(tasks[0], 3)
    learner.glance(parts(tasks[1], 0), 3, False)  # a step away from θ_old, with momentum
    named = dict(model.named_parameters())
    before = {each: weights.detach().clone() for each, weights in named.items()}
    buffers = {each: optimizer.state[weights].get("momentum_buffer") for each, weights in named.items()}
    buffers = {each: torch.zeros_like(before[each]) if b is None else b.clone() for each, b in buffers.items()}
    old, log = dict(learner._old), learner._log.detach().clone()
    gated = gates(model, learner, kind)

    part = parts(tasks[1], 8)
    torch.manual_seed(5)
    replay = learner._drawn(part)
    meta = learner._buffer.draw(12)
    variable = log.clone().requires_grad_()

    def loss(weights: dict[str, Tensor], each: Remembered) -> Tensor:
        head = "heads.shared"
        features = torch.func.functional_call(
            model.backbone,
            {k.removeprefix("backbone."): w for k, w in weights.items() if k.startswith("backbone.")},
            (each.batch[0],),
        )
        logits = F.linear(features, weights[f"{head}.weight"], weights[f"{head}.bias"])
        return F.cross_entropy(logits, each.batch[1] + model.first(each.task), reduction="none")

    leaves = {each: weights.clone().requires_grad_() for each, weights in before.items()}
    own = loss(leaves, part).mean()
    if replay:
        own = own + torch.cat([loss(leaves, each) for each in replay]).mean()
    gradients = dict(zip(leaves, torch.autograd.grad(own, list(leaves.values())), strict=True))
    after = {}
    for each in before:
        distance = before[each] - old[each]
        if kind == "mas":
            distance = distance * learner._ratios[each]  # type: ignore[attr-defined]
        step = gated[each] * (gradients[each] + variable[learner._inside[each]].exp() * distance)
        after[each] = before[each] - 0.07 * (momentum * buffers[each] + step)
    (expected,) = torch.autograd.grad(torch.cat([loss(after, each) for each in meta]).mean(), variable)

    torch.manual_seed(5)
    learner.glance(part, 4, True)
    assert cast(Tensor, expected).abs().min() > 1e-6
    assert learner._log.grad is not None
    assert (learner._log.grad - expected).abs().max() < 1e-10
    for each, weights in model.named_parameters():
        torch.testing.assert_close(weights.detach(), after[each].detach(), rtol=0, atol=1e-12)
    adam = torch.optim.Adam([again := nn.Parameter(log.clone())], 2e-3)
    again.grad = expected
    adam.step()
    torch.testing.assert_close(learner._log.detach(), again.detach(), rtol=0, atol=1e-12)


def test_fixed_coefficients_stay_and_an_empty_buffer_skips_the_meta_step() -> None:
    tasks = classes(2)
    for settings, keeps in (({"meta": False}, True), ({}, False)):
        _, learner, _ = prepared("mango", tasks, **settings)
        learner.glance(parts(tasks[0], 0), 0, True)
        if keeps:
            learner.keep(parts(tasks[0], 0))
        learner.border(tasks[0], 1)
        learner.glance(parts(tasks[1], 0), 1, True)
        learner.glance(parts(tasks[1], 8), 2, True)
        assert torch.equal(learner._log, torch.full_like(learner._log, -0.5))


def test_a_layer_without_spread_has_gates_of_a_half() -> None:
    tasks = classes(1)
    model, learner, _ = prepared("mango", tasks)
    with torch.no_grad():
        for weights in model.heads.parameters():
            weights.fill_(0.3)
    learner._prepare()
    found = learner._gate("heads.shared.weight", model.head(tasks[0].name).weight.detach())
    assert torch.equal(cast(Tensor, found), torch.full_like(cast(Tensor, found), 0.5))


def test_gates_of_mas_are_one_before_anything_is_known_and_small_where_it_matters() -> None:
    tasks = classes(1)
    _, learner, _ = prepared("mas-gated", tasks)
    assert learner._gate("backbone.0.weight", torch.zeros(1)) == 1.0
    learner.keep(parts(tasks[0], 0))
    learner.border(tasks[0], 1)
    ratios = learner._ratios  # type: ignore[attr-defined]
    total = sum(float(each.sum()) for each in ratios.values())
    assert total == pytest.approx(sum(each.numel() for each in ratios.values()))
    assert sum(map(sum, learner.figures()["gates"][0])) == total == pytest.approx(total)


def test_histograms_count_every_parameter() -> None:
    tasks = classes(1)
    for gate in ("signed", "half"):
        model, learner, _ = prepared("mango", tasks, gate=gate)
        learner.border(tasks[0], 1)
        assert sum(map(sum, learner.figures()["gates"][0])) == sum(each.numel() for each in model.parameters())


def test_it_needs_plain_sgd() -> None:
    tasks = classes(1)
    model = network(scenario="class")
    tasks[0].objective.prepare(model, tasks[0].name)
    for optimizer in (
        torch.optim.Adam(model.parameters()),
        torch.optim.SGD(model.parameters(), 0.1, 0.9, nesterov=True),
    ):
        with pytest.raises(ForgetlessError, match="'mango' needs SGD with one group, no dampening"):
            create("mango").begin(model, tasks, optimizer, Budget(0.1))


def test_it_keeps_one_copy_of_the_parameters_and_no_gradients_beside_those_of_the_meta_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tasks = classes(2)
    model, learner, _ = prepared("mango", tasks)
    held: list[int] = []
    gradients = learner.passes.gradients

    def watched(*given: Any) -> Any:
        held.append(sum(each.grad is not None for each in model.parameters()))
        return gradients(*given)

    monkeypatch.setattr(learner.passes, "gradients", watched)
    learner.glance(parts(tasks[0], 0), 0, True)
    learner.keep(parts(tasks[0], 0))
    learner.border(tasks[0], 1)
    learner.glance(parts(tasks[1], 0), 1, True)
    assert held == [0]
    size = sum(each.numel() for each in model.parameters())
    tree = learner.tree()
    own = [*tree["old"].values(), *learner._scales.values()]  # type: ignore[attr-defined]
    assert size <= sum(each.numel() for each in own) <= size + len(learner._named)
