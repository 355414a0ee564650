from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from forgetless.errors import ForgetlessError
from forgetless.learn.heads import MultiHead, warm_start
from streams import CLASSES, FEATURES, INPUTS, network, stream


def test_a_head_per_task_on_one_backbone() -> None:
    model = network()
    model.grow("first", 3)
    model.grow("second", 5)
    inputs = torch.randn(4, INPUTS)
    features = model.backbone(inputs)
    assert torch.equal(model(inputs, "first"), model.head("first")(features))
    assert model(inputs, "second").shape == (4, 5)


@given(st.lists(st.text(max_size=12), min_size=1, max_size=6, unique=True))
def test_any_name_is_a_task_of_its_own(names: list[str]) -> None:
    model = network()
    for classes, name in enumerate(names, 1):
        model.grow(name, classes)
    assert [model.head(name).out_features for name in names] == list(range(1, len(names) + 1))
    assert all(name.startswith(("backbone.", "heads.")) for name, _ in model.named_parameters())


@pytest.mark.parametrize("name", ["a.b", "", "keys", "training", "type", "_modules", "a%2Eb", "keys%", "..", "é/ü"])
def test_names_that_modules_do_not_take(name: str) -> None:
    model = network()
    model.grow(name, 2)
    model.grow(name + " too", 3)
    clone = network()
    clone.grow(name, 2)
    clone.grow(name + " too", 3)
    clone.load_state_dict(model.state_dict())
    assert torch.equal(clone.head(name).weight, model.head(name).weight)


def test_a_head_has_the_device_and_dtype_of_the_backbone() -> None:
    model = network().double()
    model.grow("t", 2)
    assert model.head("t").weight.dtype == torch.float64


def test_heads_that_are_not_there_or_there_twice() -> None:
    model = network()
    with pytest.raises(ForgetlessError, match=r"^task 'x' has no head; the heads are none\.$"):
        model.head("x")
    model.grow("x", 2)
    with pytest.raises(ForgetlessError, match=r"^task 'x' has a head already\.$"):
        model.grow("x", 2)
    with pytest.raises(ForgetlessError, match=r"^the head of task 'y' needs at least one class, not 0\.$"):
        model.grow("y", 0)
    with pytest.raises(ForgetlessError, match=r"^task 'y' has no head; the heads are 'x'\.$"):
        model(torch.randn(1, INPUTS), "y")


def test_one_head_for_all_tasks() -> None:
    model = network(scenario="domain")
    model.grow("first", 3)
    before = model.head("first").weight
    model.grow("second", 3)
    assert model.head("second").weight is before
    assert (model.first("first"), model.first("second"), model.tasks) == (0, 0, 2)
    assert model.unshared == ()
    with pytest.raises(ForgetlessError, match=r"^all tasks share a head of 3 classes, and task 'x' has 2\.$"):
        model.grow("x", 2)
    with pytest.raises(ForgetlessError, match=r"^task 'second' has a head already\.$"):
        model.grow("second", 3)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_one_head_that_grows_and_keeps_its_rows(classes: list[int]) -> None:
    model = network(scenario="class")
    inputs, answers = torch.randn(4, INPUTS), torch.zeros(4, 0)
    for number, count in enumerate(classes):
        model.grow(str(number), count)
        assert model.first(str(number)) == sum(classes[:number])
        logits = model(inputs, "0")
        assert logits.shape == (4, sum(classes[: number + 1]))
        assert torch.allclose(logits[:, : answers.shape[1]], answers, atol=1e-6)
        answers = logits.detach()
    assert model.knows_something == (len(classes) > 1)


def test_a_head_per_task_is_of_no_other() -> None:
    model = network()
    model.grow("first", 3)
    model.grow("second", 2)
    assert (model.first("first"), model.first("second"), model.unshared) == (0, 0, ("heads",))


def test_a_scenario_that_is_not_there() -> None:
    with pytest.raises(ForgetlessError, match=r"^a scenario is 'task', 'domain' or 'class', not 'tasks'\.$"):
        network(scenario="tasks")


def test_a_frozen_backbone_computes_the_same_whatever_happens() -> None:
    model = network(noisy=True)
    model.grow("t", 3)
    model.train()
    model.freeze()
    inputs = torch.randn(8, INPUTS)
    before = model.backbone(inputs)
    model.train()
    assert torch.equal(model.backbone(inputs), before)
    assert not any(parameter.requires_grad for parameter in model.backbone.parameters())
    assert all(parameter.requires_grad for parameter in model.heads.parameters())
    model.freeze(False)
    assert model.backbone.training
    assert all(parameter.requires_grad for parameter in model.backbone.parameters())


def test_warm_start_finds_the_minimum_it_names() -> None:
    model, task = network(pretrained=True).double(), stream(1, noise=1.5)[0]
    inputs, labels = task.train[0].double(), task.train[1]
    model.grow(task.name, len(CLASSES))
    warm_start(model, task.name, inputs, labels, batch_size=7)
    with torch.no_grad():
        features = model.backbone(inputs)
    mean = features.mean(0)
    deviation = (features - mean).square().mean().sqrt()
    head = model.head(task.name)
    weight = (head.weight.detach() * deviation).requires_grad_()
    bias = (head.bias.detach() + head.weight.detach() @ mean).requires_grad_()
    logits = (features - mean) / deviation @ weight.T + bias
    loss = F.cross_entropy(logits, labels) + weight.square().sum() / (2 * len(labels))
    gradients = torch.autograd.grad(loss, (weight, bias))
    assert max(float(gradient.abs().max()) for gradient in gradients) < 2e-5
    assert torch.allclose(logits, model(inputs, task.name))


def test_warm_start_changes_one_head_and_draws_nothing() -> None:
    model, task = network(noisy=True), stream(1)[0]
    model.grow("other", 2)
    model.grow(task.name, 3)
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    warm_start(model, task.name, *task.train, batch_size=16)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"heads.task%2E0.weight", "heads.task%2E0.bias"}
    assert torch.equal(torch.get_rng_state(), random)
    assert model.training
    assert model.backbone.training


def test_warm_start_is_invariant_to_the_scale_of_the_features() -> None:
    class Scaled(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return 1000 * inputs + 5

    task = stream(1, noise=1.5)[0]
    logits = []
    for backbone in (nn.Identity(), Scaled()):
        model = MultiHead(nn.Sequential(backbone, nn.Linear(1, 1).requires_grad_(False)), INPUTS)
        model.backbone = backbone
        model.grow("t", 3)
        warm_start(model, "t", *task.train, batch_size=100)
        logits.append(model(task.test[0], "t"))
    assert torch.allclose(logits[0], logits[1], atol=2e-2)


def test_warm_start_gives_no_huge_weight_to_a_feature_that_hardly_varies() -> None:
    class NearlyDead(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs * torch.tensor([1e-4] + [1.0] * (INPUTS - 1))

    task = stream(1, noise=1.5)[0]
    model = MultiHead(nn.Sequential(nn.Linear(1, 1)), INPUTS)
    model.backbone = NearlyDead()
    model.grow("t", 3)
    warm_start(model, "t", *task.train, batch_size=100)
    sizes = model.head("t").weight.detach().abs().amax(0)
    assert float(sizes[0]) < float(sizes[1:].max())


def test_warm_start_with_features_that_never_change() -> None:
    model, task = network(), stream(1)[0]
    model.grow("t", 3)
    with torch.no_grad():
        model.backbone[0].weight.zero_()
    warm_start(model, "t", *task.train, batch_size=16)
    shares = F.softmax(model(task.train[0], "t"), 1)
    assert torch.allclose(shares, torch.full_like(shares, 1 / 3), atol=1e-3)


def test_warm_start_refuses_what_cannot_be_fitted() -> None:
    model, task = network(), stream(1)[0]
    model.grow("t", 3)
    with torch.no_grad():
        model.backbone[0].bias.fill_(float("nan"))
    with pytest.raises(ForgetlessError, match=r"^the backbone's features of task 't' hold NaN or Inf\.$"):
        warm_start(model, "t", *task.train, batch_size=16)
    wide = MultiHead(network().backbone, FEATURES + 1)
    wide.grow("t", 3)
    with pytest.raises(
        ForgetlessError, match=r"^the backbone gives \[48, 12\] for 48 inputs of task 't', not \[48, 13\]\.$"
    ):
        warm_start(wide, "t", *task.train, batch_size=16)
