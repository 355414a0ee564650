"""What a measurement costs on a stream, batch by batch, as a ratio to one plain forward and backward pass.

    OMP_NUM_THREADS=1 python benchmarks/streaming.py --clock cpu   writes benchmarks/results/streaming.json
    python benchmarks/streaming.py --table                         rewrite the table in docs/performance.md

Plain is ‖F‖² forward and backward for all parameters in eval mode, at the same batch size and memory layout. Every row
is timed in turn with plain, round by round, and what is reported is the median of the ratio to the plain of its round.
"""

from __future__ import annotations

import statistics
from typing import Any

import torch

import forgetless
import peers
from importance import Clock, environment
from networks import NETWORKS
from rounds import footer, run

BATCHES = {"mlp": 64, "resnet18-64": 32, "gpt-256": 4, "gpt-32": 32}
ROWS = {
    "first": "the first `add`",
    "add": "a later `add`",
    "inside": "a later `add`, inside `with`",
    "into": "`mas(model, batch, into=importance)`",
}


def measure(name: str, clock: Clock, rounds: int) -> dict[str, Any]:
    """All rows of one network."""
    torch.manual_seed(0)
    network = NETWORKS[name]
    model, x = network.make().eval(), network.inputs(BATCHES[name])
    if network.images:
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    run = peers.plain(model)

    def plain() -> float:
        seconds = clock.time(lambda: run(x))
        for parameter in model.parameters():
            parameter.grad = None
        return seconds

    plain()
    ratios: dict[str, list[float]] = {row: [] for row in ROWS}
    plains: list[float] = []
    outside, inside = forgetless.Measurement(model), forgetless.Measurement(model)
    first = clock.time(lambda: outside.add(x))
    inside.add(x)
    importance = outside.importance()
    for _ in range(rounds):
        plains.append(plain())
        ratios["add"].append(clock.time(lambda: outside.add(x)) / plains[-1])
        with inside:
            inside.add(x)
            ratios["inside"].append(clock.time(lambda: inside.add(x)) / plains[-1])
        seconds = clock.time(lambda: forgetless.mas(model, x, into=importance, progress=False))
        ratios["into"].append(seconds / plains[-1])
    ratios["first"] = [first / statistics.median(plains)]
    rows = {row: {"ratio": statistics.median(each), "ratios": each} for row, each in ratios.items()}
    return {"batch": BATCHES[name], "plain_seconds": plains, "rows": rows, "environment": environment(clock.kind)}


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    names = [name for name in BATCHES if name in results]
    lines = [
        "| ÷ plain | " + " | ".join(f"{NETWORKS[name].title}, batch {results[name]['batch']}" for name in names) + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    for row, title in ROWS.items():
        cells = [f"{results[name]['rows'][row]['ratio']:.2f}" for name in names]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    plain = [f"{1000 * statistics.median(results[name]['plain_seconds']):.3g}" for name in names]
    lines.append("| plain, ms a batch | " + " | ".join(plain) + " |")
    return "\n".join([*lines, *footer(results, names)])


if __name__ == "__main__":
    run(__doc__, BATCHES, measure, table, "streaming", rounds=7)
