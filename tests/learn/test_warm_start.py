from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from forgetless.errors import ForgetlessError
from forgetless.learn.heads import MultiHead
from forgetless.learn.warm_start import warm_start
from streams import CLASSES, FEATURES, INPUTS, network, stream


def test_warm_start_finds_the_minimum_it_names() -> None:
    model, task = network(pretrained=True).double(), stream(1, noise=1.5)[0]
    inputs, labels = task.train[0].double(), task.train[1]
    model.grow(task.name, len(CLASSES))
    warm_start(model, task.name, (inputs, labels), batch_size=7)
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
    warm_start(model, task.name, task.train, batch_size=16)
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
        warm_start(model, "t", task.train, batch_size=100)
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
    warm_start(model, "t", task.train, batch_size=100)
    sizes = model.head("t").weight.detach().abs().amax(0)
    assert float(sizes[0]) < float(sizes[1:].max())


def test_warm_start_with_features_that_never_change() -> None:
    model, task = network(), stream(1)[0]
    model.grow("t", 3)
    with torch.no_grad():
        model.backbone[0].weight.zero_()
    warm_start(model, "t", task.train, batch_size=16)
    shares = F.softmax(model(task.train[0], "t"), 1)
    assert torch.allclose(shares, torch.full_like(shares, 1 / 3), atol=1e-3)


def test_warm_start_refuses_what_cannot_be_fitted() -> None:
    model, task = network(), stream(1)[0]
    model.grow("t", 3)
    with torch.no_grad():
        model.backbone[0].bias.fill_(float("nan"))
    with pytest.raises(ForgetlessError, match=r"^the backbone's features of task 't' hold NaN or Inf\.$"):
        warm_start(model, "t", task.train, batch_size=16)
    wide = MultiHead(network().backbone, FEATURES + 1)
    wide.grow("t", 3)
    with pytest.raises(
        ForgetlessError, match=r"^the backbone gives \[48, 12\] for 48 inputs of task 't', not \[48, 13\]\.$"
    ):
        warm_start(wide, "t", task.train, batch_size=16)
