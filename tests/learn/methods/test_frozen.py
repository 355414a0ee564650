from __future__ import annotations

import functools

import pytest
import torch

from forgetless.learn.methods.frozen import Frozen
from forgetless.learn.optimizers import sgd
from forgetless.learn.position import Progress
from forgetless.learn.recipe import Recipe
from forgetless.learn.train import learn
from streams import network, same, stream

STREAM = stream(3)
RECIPE = Recipe(lr=0.05, epochs=2, batch_size=24, optimizer=functools.partial(sgd, weight_decay=0.1))


@pytest.mark.parametrize("pretrained", [False, True])
def test_the_backbone_is_as_it_was_once_it_knew_something(pretrained: bool) -> None:
    model, first = network(noisy=True, pretrained=pretrained), network(noisy=True, pretrained=pretrained)
    untouched = network(noisy=True)
    outcome = learn(model, STREAM, Frozen(), RECIPE, seed=0)
    learn(first, STREAM[:1], Frozen(), RECIPE, seed=0)
    assert same(model.backbone, first.backbone)
    assert same(first.backbone, untouched.backbone) == pretrained
    for j in range(3):
        assert len({outcome.accuracy[i][j] for i in range(j, 3)}) == 1


def test_its_heads_are_trained() -> None:
    heads: list[torch.Tensor] = []

    def on_progress(progress: Progress) -> None:
        if progress.phase == "train":
            heads.append(model.head(progress.name).weight.detach().clone())

    model = network(pretrained=True)
    learn(model, STREAM[:1], Frozen(), RECIPE, seed=0, on_progress=on_progress)
    assert not torch.equal(heads[0], heads[-1])
