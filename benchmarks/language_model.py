"""What measuring a language model of SmolLM2-135M's shape costs, in time and in memory.

    OMP_NUM_THREADS=1 python benchmarks/language_model.py --clock cpu   writes benchmarks/results/language_model.json
    python benchmarks/language_model.py --table                         rewrite the table in docs/performance.md

The weights are random: neither figure depends on them. Time is that of a later `Measurement.add`, as a ratio to plain,
‖F‖² forward and backward for all parameters in eval mode on the same batch; both take turns, round by round, and the
median of the rounds' ratios is reported. Memory is the peak of a process of its own beyond the model: of two `add`,
the first of which plans; of plain; and of two training steps with AdamW on as many tokens. Needs transformers.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import forgetless
import peers
from importance import Clock, _status, environment
from rounds import footer, run

CASES = {f"{count}x{length}": (count, length) for length in (128, 256) for count in (2, 4)}
PEAKS = {
    "plain": "plain",
    "training": "a training step with AdamW",
    "measuring": "`mas`, its start included",
}


class Logits(nn.Module):
    """The logits alone, without the cache of keys and values."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        """`[N, T]` → `[N, T, V]`."""
        logits: Tensor = self.model(ids, use_cache=False).logits
        return logits


def make() -> nn.Module:
    """A model of SmolLM2-135M's shape: 134.5 million parameters, the embedding table tied to the head."""
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    return Logits(transformers.LlamaForCausalLM(config)).eval()


def tokens(case: str) -> Tensor:
    """A batch of the case."""
    return torch.randint(49152, CASES[case], generator=torch.Generator().manual_seed(0))


def training(model: nn.Module) -> Callable[[Tensor], None]:
    """A step of AdamW on the next token's cross entropy."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def step(ids: Tensor) -> None:
        model.train()
        optimizer.zero_grad()
        functional.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
        optimizer.step()

    return step


def measuring(model: nn.Module, count: int) -> Callable[[Tensor], Any]:
    """`Measurement.add` with the whole batch at a time."""
    return forgetless.Measurement(model, batch_size=count).add


def measure(case: str, clock: Clock, rounds: int) -> dict[str, Any]:
    """Time and memory of one case."""
    model, ids = make(), tokens(case)
    plain = peers.plain(model)
    measurement = forgetless.Measurement(model, batch_size=len(ids))
    first = clock.time(lambda: measurement.add(ids))
    plains, ratios = [], []
    for turn in range(rounds + 1):
        seconds = clock.time(lambda: plain(ids))
        for parameter in model.parameters():
            parameter.grad = None
        with measurement:
            ratio = clock.time(lambda: measurement.add(ids)) / seconds
        if turn:  # the first one warms up
            plains.append(seconds)
            ratios.append(ratio)
    return {
        "rows": {"mas": {"ratio": statistics.median(ratios), "ratios": ratios}},
        "plain_seconds": plains,
        "start_in_plain": first / statistics.median(plains),
        "peak_mib": {row: peak(case, row) for row in PEAKS},
        "environment": environment(clock.kind),
    }


def peak(case: str, row: str) -> float:
    """MiB that a row adds to the model, in a process of its own."""
    # What is freed goes back to the system at once, so that the peak is of memory in use.
    place = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, __file__, "--memory-of", case, row]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, env=place).stdout)


def memory_of(case: str, row: str) -> None:
    """Print the peak of this process beyond the model."""
    model, ids = make(), tokens(case)
    works = {"plain": peers.plain, "training": training, "measuring": lambda model: measuring(model, len(ids))}
    with torch.no_grad():
        model(ids[:1, :2])  # what is loaded at first use is no row's
    work = works[row](model)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    for _ in range(2):
        work(ids)
    print((_status("VmHWM") - before) / 1024)


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    names = [case for case in CASES if case in results]
    titles = [f"{CASES[case][0]} × {CASES[case][1]} tokens" for case in names]
    lines = ["| | " + " | ".join(titles) + " |", "|---" * (len(names) + 1) + "|"]
    rows: dict[str, Callable[[dict[str, Any]], str]] = {
        "`mas` ÷ plain, a later batch": lambda found: f"{found['rows']['mas']['ratio']:.2f}",
        "its smallest and largest round": lambda found: "–".join(
            f"{end(found['rows']['mas']['ratios']):.2f}" for end in (min, max)
        ),
        "the first batch, with all that is planned": lambda found: f"{found['start_in_plain']:.1f}",
        "plain, seconds": lambda found: f"{statistics.median(found['plain_seconds']):.1f}",
        **{
            f"peak MiB, {title}": lambda found, row=row: f"{found['peak_mib'][row]:,.0f}"
            for row, title in PEAKS.items()
        },
    }
    for title, cell in rows.items():
        lines.append(f"| {title} | " + " | ".join(cell(results[case]) for case in names) + " |")
    return "\n".join([*lines, *footer(results, names)])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory-of"]:
        memory_of(*sys.argv[2:])
    else:
        run(__doc__, CASES, measure, table, "language_model", rounds=5)
