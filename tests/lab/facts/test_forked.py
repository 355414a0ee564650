from __future__ import annotations

import torch
from torch import nn

from forgetless.lab.datasets.reading.fact import PARTS
from forgetless.lab.facts.forked import Fork, forked
from streams import same


def backbone() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh())


def test_branches_are_joined_in_their_order() -> None:
    fork = Fork({"b": nn.Linear(3, 2), "a": nn.Linear(3, 4)})
    features = torch.randn(6, 3)
    assert torch.equal(fork(features), torch.cat([fork.branches["b"](features), fork.branches["a"](features)], 1))


def test_an_embedding_for_each_part() -> None:
    old, pictures = backbone(), torch.randn(6, 5)
    network = forked(old, 7, 4, 0)
    weights = dict(network.named_parameters())
    outputs = network(pictures, "any task").view(6, 3, 4)
    for place, part in enumerate(PARTS):
        weight, bias = (weights[f"shared.branches.{part}.{kind}"] for kind in ("weight", "bias"))
        assert torch.allclose(outputs[:, place], old(pictures) @ weight.T + bias, atol=1e-6)
    assert not torch.allclose(outputs[:, 0], outputs[:, 1])
    assert (network.width("any task"), network.pretrained, network.unshared) == (12, True, ())


def test_the_seed_alone_decides_the_first_weights() -> None:
    old = backbone()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = forked(old, 7, 4, 1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert same(forked(old, 7, 4, 1), first)
    assert not same(forked(old, 7, 4, 2), first)
