"""Two processes train together in DDP: the core stands still in both, and both end at the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn, optim
from torch.nn.parallel import DistributedDataParallel

from forgetless.protect.frozen.freeze import FrozenCore
from frozen import loss, network, random_masks, same, trained, weights


def replicas(rank: int, wrapped_first: bool, views: bool) -> dict[str, Any]:
    """What one of the processes does."""
    model = network()
    masks = random_masks(model, 5)
    masks["mix.bias"] = torch.ones(4, dtype=torch.bool)
    before = weights(model)
    core = None if wrapped_first else FrozenCore(model, masks)
    together = DistributedDataParallel(model, gradient_as_bucket_view=views)
    core = core or FrozenCore(together, masks)
    optimizer = optim.AdamW(together.parameters(), lr=0.1, weight_decay=0.1)
    core.attach(optimizer)
    gradients = []
    for step in range(3):
        optimizer.zero_grad()
        value = loss(together, 2 * step + rank)
        if not rank and step == 1:  # NaN that one process has in the core would otherwise reach both
            hook = model.mix.weight.register_hook(lambda grad: grad.masked_fill(masks["mix.weight"], float("nan")))
        value.backward()
        if not rank and step == 1:
            hook.remove()
        gradients += [p.grad[masks[n]].abs().sum() for n, p in model.named_parameters() if p.grad is not None]
        nn.utils.clip_grad_norm_(together.parameters(), 0.5)
        optimizer.step()
    with together.no_sync():
        loss(together, 0).backward()
    return {
        "still": same(weights(model), before, masks),
        "moved": not same(weights(model), before),
        "core": float(torch.stack(gradients).sum()),
        "weights": weights(model),
        "mark": core._mark,
    }


@pytest.mark.parametrize("wrapped_first", [False, True])
@pytest.mark.parametrize("views", [False, True])
def test_replicas(two, wrapped_first, views):
    first, second = two.run(replicas, wrapped_first, views)
    assert first["still"]
    assert first["moved"]
    assert first["core"] == second["core"] == 0
    assert same(first["weights"], second["weights"])
    assert first["mark"] == second["mark"]


def test_replicas_are_one_process_with_both_batches(two):
    found = two.run(replicas_plainly)[0]
    model = network()
    masks = random_masks(model, 5)
    core = FrozenCore(model, masks)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    core.attach(optimizer)
    for step in range(2):
        optimizer.zero_grad()
        ((loss(model, 2 * step) + loss(model, 2 * step + 1)) / 2).backward()
        optimizer.step()
    for name, now in weights(model).items():
        torch.testing.assert_close(found[name], now)


def replicas_plainly(rank: int) -> dict[str, Any]:
    model = network()
    core = FrozenCore(model, random_masks(model, 5))
    together = DistributedDataParallel(model)
    optimizer = optim.SGD(together.parameters(), lr=0.1)
    core.attach(optimizer)
    for step in range(2):
        trained(together, optimizer, 1, 2 * step + rank)
    return weights(model)
