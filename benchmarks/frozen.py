"""What a frozen core saves in memory and costs in time, beside plain AdamW.

    OMP_NUM_THREADS=1 python benchmarks/frozen.py --clock cpu   writes benchmarks/results/frozen.json
    python benchmarks/frozen.py --table                         rewrites the table in docs/freezing.md

A GPT of 11 million parameters is trained on 2 × 256 positions with cores of random elements, rows and tensors, the
hardest case for element masks. *State* is the bytes of all tensors in the optimizer's state after two steps; *masks*
what the core itself holds. *Peak* is what the process takes beyond the model and its gradients at most during
`optimizer.step()`, in a process of its own. *Step* is the time of `optimizer.step()`, and *training step* that of
forward, backward and step, each ÷ plain AdamW's of the same round; rows take turns in an order drawn anew each round,
and medians over rounds (the smallest and the largest) are reported. Every row trains a network of its own from the
same weights.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn, optim

import networks
from forgetless import Importance
from forgetless.measure.selection import core_masks
from forgetless.protect.frozen.freeze import FrozenCore
from importance import Clock, _status, environment

RESULTS = Path(__file__).parent / "results" / "frozen.json"
PAGE = Path(__file__).parents[1] / "docs" / "freezing.md"
ROWS: dict[str, tuple[str, float] | None] = {
    "AdamW, nothing frozen": None,
    **{f"{kind}, keep {keep:g}": (kind, keep) for kind in ("element", "row", "tensor") for keep in (0.3, 0.9)},
}
OPTIMIZERS: dict[str, Callable[[Any], optim.Optimizer]] = {
    "AdamW": lambda parameters: optim.AdamW(parameters, lr=1e-5),
    "AdamW(fused=True)": lambda parameters: optim.AdamW(parameters, lr=1e-5, fused=True),
}
NETWORK, BATCH = "gpt-256", 2


class Row:
    """One network in training."""

    def __init__(self, name: str, optimizer: str) -> None:
        torch.manual_seed(0)
        self.model: nn.Module = networks.NETWORKS[NETWORK].make().train()
        self.inputs: Tensor = networks.NETWORKS[NETWORK].inputs(BATCH)
        self.core: FrozenCore | None = None
        if (how := ROWS[name]) is not None:
            found = Importance({n: torch.rand_like(p) for n, p in self.model.named_parameters()}, 1.0)
            self.core = FrozenCore(self.model, core_masks(found, how[1], how[0]))  # type: ignore[arg-type]
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        if self.core is not None:
            self.core.attach(self.optimizer)

    def backward(self) -> None:
        """Gradients of a batch."""
        self.optimizer.zero_grad()
        self.model(self.inputs).square().sum().backward()

    def state(self) -> int:
        """Bytes of the optimizer's state."""
        every = [v for state in self.optimizer.state.values() for v in state.values() if isinstance(v, Tensor)]
        return sum(each.untyped_storage().nbytes() for each in every)

    def masks(self) -> int:
        """Bytes that the core holds."""
        shares = [] if self.core is None else self.core._shares.values()
        held = [v for share in shares for v in vars(share).values() if isinstance(v, Tensor)]
        return sum(each.untyped_storage().nbytes() for each in held)


def measured(optimizer: str, clock: Clock, rounds: int) -> dict[str, Any]:
    """Times and bytes of every row."""
    rows = {name: Row(name, optimizer) for name in ROWS}
    order, plain = random.Random(0), next(iter(ROWS))
    steps: dict[str, list[float]] = {name: [] for name in ROWS}
    whole: dict[str, list[float]] = {name: [] for name in ROWS}
    for turn in range(rounds + 1):
        for name in order.sample(list(ROWS), len(ROWS)):
            backward = clock.time(rows[name].backward)
            step = clock.time(rows[name].optimizer.step)
            if turn:  # the first one makes the state
                steps[name].append(step)
                whole[name].append(backward + step)
    found: dict[str, Any] = {}
    for name, row in rows.items():
        found[name] = {
            "frozen": 0.0 if row.core is None else row.core.status().fraction,
            "state": row.state(),
            "masks": row.masks(),
            "step": [a / b for a, b in zip(steps[name], steps[plain], strict=True)],
            "training step": [a / b for a, b in zip(whole[name], whole[plain], strict=True)],
        }
    return {"plain_ms": [1e3 * statistics.median(each[plain]) for each in (steps, whole)], "rows": found}


def peak(name: str) -> float:
    """MiB beyond the model and its gradients, at most, in a process of its own."""
    # What is freed goes back to the system at once, so that the peak is of memory in use.
    place = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, __file__, "--peak-of", name]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, env=place).stdout)


def peak_of(name: str) -> None:
    """Print it: of two steps, the first of which makes the state."""
    row = Row(name, "AdamW")
    row.backward()
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    for _ in range(2):
        row.optimizer.step()
    print((_status("VmHWM") - before) / 1024)


def table(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        "| core | frozen | state, MiB | masks, MiB | peak, MiB | step ÷ plain | fused step ÷ plain fused | "
        "training step ÷ plain |",
        "|---|---|---|---|---|---|---|---|",
    ]
    default, fused = (found["times"][name] for name in OPTIMIZERS)
    for name, row in default["rows"].items():
        mib = [f"{row[key] / 2**20:.1f}" for key in ("state", "masks")]
        times = [_spread(each) for each in (row["step"], fused["rows"][name]["step"], row["training step"])]
        cells = [name, f"{row['frozen']:.3f}", *mib, f"{found['peak_mib'][name]:.0f}", *times]
        lines.append(f"| {' | '.join(cells)} |")
    place = found["environment"]
    step, whole = default["plain_ms"]
    return "\n".join(
        [
            *lines,
            "",
            f"Plain AdamW: {step:.0f} ms a step, {fused['plain_ms'][0]:.0f} ms fused, {whole:.0f} ms a training step. "
            f"{place['cpu']}, {place['threads']} thread(s), clock: {place['clock']}, load {place['load']:.1f}; "
            f"torch {place['torch']}.",
        ]
    )


def _spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"


def main() -> None:
    """Measure, or rewrite the table."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--rounds", type=int, default=5)
    words.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: one thread, on a busy machine")
    words.add_argument("--file", type=Path, default=RESULTS)
    words.add_argument("--table", action="store_true", help="only rewrite the table")
    words.add_argument("--peak-of", help=argparse.SUPPRESS)
    given = words.parse_args()
    if given.peak_of:
        peak_of(given.peak_of)
        return
    if given.table:
        begin, end = "<!-- frozen: begin -->\n", "<!-- frozen: end -->"
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(begin)
        text = table(json.loads(given.file.read_text(encoding="utf-8")))
        PAGE.write_text(before + begin + text + "\n" + end + rest.partition(end)[2], encoding="utf-8")
        return
    if given.clock == "cpu":
        torch.set_num_threads(1)
    clock = Clock(given.clock)
    found = {
        "environment": environment(given.clock),
        "times": {name: measured(name, clock, given.rounds) for name in OPTIMIZERS},
        "peak_mib": {name: peak(name) for name in ROWS},
    }
    given.file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
