from __future__ import annotations

import torch

from forgetless.learn.methods.mas import MAS
from forgetless.learn.recipe import Recipe
from forgetless.learn.train import learn
from forgetless.measure import reference
from streams import network, stream

STREAM = stream(3)
RECIPE = Recipe(lr=0.05, epochs=3, batch_size=24)


def test_importance_is_eq_2_of_every_task_summed_without_labels_or_heads() -> None:
    """Against the slow reference, taken on the network as it was at the end of each task."""
    expected: dict[str, torch.Tensor] = {}
    for count, task in enumerate(STREAM, 1):
        model, method = network(noisy=True), MAS()
        learn(model, STREAM[:count], method, RECIPE, seed=0)
        found = reference.mas(
            model, task.train[0], forward=lambda net, x, name=task.name: net(x, name), exclude="heads"
        )
        for name, omega in found.mean().items():
            expected[name] = expected.get(name, torch.zeros_like(omega)) + omega
    kept = method.state()
    prefix = "anchor/importance."
    importance = {key.removeprefix(prefix): value for key, value in kept.items() if key.startswith(prefix)}
    assert importance.keys() == {name for name, _ in model.named_parameters() if name.startswith("backbone.")}
    for name, omega in importance.items():
        assert torch.allclose(omega, expected[name].float(), rtol=1e-4, atol=1e-6 * float(expected[name].max()))
        assert torch.equal(kept[f"anchor/weights.{name}"], model.get_parameter(name))


def test_a_strong_anchor_holds_and_does_not_blow_up() -> None:
    first, method, model = network(), MAS(1e12), network()
    learn(first, STREAM[:1], method, RECIPE, seed=0)
    learn(model, STREAM[:2], MAS(1e12), RECIPE, seed=0)
    importance = method.state()
    for name, weights in model.backbone.named_parameters():
        matters = importance[f"anchor/importance.backbone.{name}"] > 1e-3
        assert bool(matters.any())
        assert torch.allclose(weights[matters], first.backbone.get_parameter(name)[matters], atol=1e-6)
