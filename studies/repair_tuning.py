"""Fine-tuning of all weights on a narrow domain, as the study of repair does it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from forgetless.learn.seeding import derive, permutation
from studies.repair_measures import logits
from studies.repair_texts import Domain, Rows

#: The peak of the learning rate, and its rise over the first 3 % of the steps; then it falls to 0. No weight decay.
RATE, WARM = 1e-4, 0.03


def batches(rows: Rows, size: int, seed: int) -> Iterator[Rows]:
    """Endless batches in an order that the seed decides, a new one for every pass; rows of a batch are alike in length.

    Every 16 batches are drawn at random, sorted by length, and then come in a random order.
    """
    lengths, epoch = rows.lengths(), 0
    while True:
        for number, pool in enumerate(torch.split(permutation(len(rows), derive(seed, "order", epoch)), 16 * size)):
            alike = torch.split(pool[lengths[pool].argsort(stable=True)], size)
            for chosen in permutation(len(alike), derive(seed, "batches", epoch, number)).tolist():
                yield rows.taken(alike[chosen])
        epoch += 1


def share_of_rate(step: int, steps: int) -> float:
    """What the learning rate is multiplied by at a step."""
    warm = max(1, round(WARM * steps))
    return min((step + 1) / warm, (steps - step) / (steps - warm) if steps > warm else 1.0)


def tune(
    model: Any,
    domain: Domain,
    seed: int,
    *,
    rate: float = RATE,
    anchor: Any = None,
    how: str = "auto",
    core: Any = None,
    added: Callable[[int], Tensor] | None = None,
) -> float:
    """Train all weights that can be trained with AdamW; the mean loss of the last tenth of the steps.

    Args:
        model: a causal language model of transformers.
        domain: what is learned, and for how long.
        seed: of the order of the rows.
        rate: the peak of the learning rate.
        anchor: protects the weights.
        how: the form in which it does.
        core: the weights that stand still.
        added: what is added to the loss at a step.
    """
    trained = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(trained, rate, weight_decay=0.0, fused=True)
    if anchor is not None:
        anchor.attach(optimizer, how=how)
    if core is not None:
        core.attach(optimizer)
    model.train()
    losses, started, steps = [], time.monotonic(), domain.steps
    for step, batch in zip(range(steps), batches(domain.train, domain.batch, seed), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = rate * share_of_rate(step, steps)
        optimizer.zero_grad(set_to_none=False)
        found, wanted = logits(model, batch)
        loss = F.cross_entropy(found, wanted)
        losses.append(float(loss.detach()))
        (loss if added is None else loss + added(step)).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 20 == 19:
            took = time.monotonic() - started
            print(f"{domain.name}, step {step + 1} of {steps}: loss {losses[-1]:.3f}, {took:.0f} s", flush=True)
    if anchor is not None:
        anchor.detach()
    if core is not None:
        core.remove()
    model.eval()
    last = losses[-max(1, steps // 10) :]
    return sum(last) / len(last)
