"""What task-free MAS costs on a stream: a step with its importance, as a ratio to the same learner without.

    OMP_NUM_THREADS=1 python benchmarks/online.py --clock cpu   writes benchmarks/results/online.json
    python benchmarks/online.py --table                         rewrite the table in docs/performance.md

A stream of 120 batches whose loss settles, with a border in the middle, is learned three times side by side, batch by
batch: without importance, with Ω refreshed at plateaus, and with Ω updated by every batch. A round is such a stream;
what is reported is the median over rounds of the ratio of the whole streams. It holds what a plateau costs, and the
start of the first measurement.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import forgetless
from importance import Clock, environment
from networks import NETWORKS
from rounds import footer, run

BATCHES = {"mlp": 64, "resnet18-64": 32}
STEPS = 120
ROWS = {"plateau": "Ω refreshed at plateaus", "batch": "Ω updated with every batch"}


def learner(name: str, refresh: str | None) -> tuple[Callable[[Tensor, Tensor], None], Callable[[], int]]:
    """A function that takes a step on a batch, and one that says how many plateaus there were."""
    torch.manual_seed(0)
    network = NETWORKS[name]
    model = network.make()
    model = model.to(memory_format=torch.channels_last) if network.images else model
    if network.images:
        forgetless.freeze_batchnorm(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    if refresh is None:

        def plain(x: Tensor, y: Tensor) -> None:
            loss = F.cross_entropy(model(x), y, reduction="none")
            optimizer.zero_grad()
            torch.autograd.backward(loss.mean())
            optimizer.step()

        return plain, lambda: 0
    stream = forgetless.TaskFreeMAS(model, optimizer, 1e-3, mean=0.5, refresh=refresh)  # type: ignore[arg-type]

    def protected(x: Tensor, y: Tensor) -> None:
        stream.step(F.cross_entropy(model(x), y, reduction="none"), x)

    return protected, lambda: stream.updates


def measure(name: str, clock: Clock, rounds: int) -> dict[str, Any]:
    """All rows of one network."""
    network = NETWORKS[name]
    torch.manual_seed(1)
    few = [network.inputs(BATCHES[name]) for _ in range(2)]  # a batch for each half of the stream: soon learned
    labels = [torch.randint(0, network.classes, (BATCHES[name],)) for _ in few]
    ratios: dict[str, list[float]] = {row: [] for row in ROWS}
    plateaus = dict.fromkeys(ROWS, 0)
    plains: list[float] = []
    for _ in range(rounds):
        learners = {"plain": learner(name, None), **{row: learner(name, row) for row in ROWS}}
        seconds = dict.fromkeys(learners, 0.0)
        for step in range(STEPS):
            x, y = few[2 * step // STEPS], labels[2 * step // STEPS]
            x = x.to(memory_format=torch.channels_last) if network.images else x
            for row, (take, _) in learners.items():
                seconds[row] += clock.time(lambda x=x, y=y, take=take: take(x, y))  # type: ignore[misc]
        plains.append(seconds["plain"])
        for row in ROWS:
            ratios[row].append(seconds[row] / seconds["plain"])
            plateaus[row] = learners[row][1]()
    rows = {
        row: {"ratio": statistics.median(each), "ratios": each, "plateaus": plateaus[row]}
        for row, each in ratios.items()
    }
    return {"batch": BATCHES[name], "plain_seconds": plains, "rows": rows, "environment": environment(clock.kind)}


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    names = [name for name in BATCHES if name in results]
    lines = [
        "| ÷ the same learner without importance | "
        + " | ".join(f"{NETWORKS[name].title}, batch {results[name]['batch']}" for name in names)
        + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    for row, title in ROWS.items():
        cells = [
            f"{results[name]['rows'][row]['ratio']:.2f} ({results[name]['rows'][row]['plateaus']} plateaus)"
            for name in names
        ]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, *footer(results, names)])


if __name__ == "__main__":
    run(__doc__, BATCHES, measure, table, "online", rounds=5)
