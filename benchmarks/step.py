"""What protection costs a training step: penalized ÷ plain, interleaved in one run.

    OMP_NUM_THREADS=2 .venv/bin/python benchmarks/step.py               # writes benchmarks/results/step.json
    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/step.py --clock cpu   # on a machine that does other things as well
    .venv/bin/python benchmarks/step.py --render                        # rewrites the tables in docs/performance.md

A step is forward, backward and `optimizer.step()`, in training mode, on one batch. Every row trains a network of its
own from the same weights; rows take turns, in an order that is drawn anew each round. The rows:

- plain: the optimizer alone;
- pull: `anchor.attach(optimizer)`, the compiled pass; compact: with Ω in bfloat16;
- pull by torch: the same without the compiled pass;
- loss: `λ Σ Ω (θ − θ*)²` added to the loss in a loop over the parameters, as Avalanche's plugins do.

Two figures for each. *Ratio* is the median over rounds of the row's time ÷ plain's of the same round: everything
counts, also what the pull leaves in the caches, and everything that the machine does meanwhile. *Inside* is the median
of a step's time ÷ the same step's without what passed in the anchor's hook: hardly any noise, but blind to the caches.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn, optim
from torch.nn import functional

import networks
from forgetless import Anchor, Importance
from forgetless.protect.optimizers import native

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "step.json"
PAGE = ROOT / "docs" / "performance.md"

# network, batch size, rounds
CASES = {
    "MLP, batch 64": ("mlp", 64, 30),
    "MLP, batch 256": ("mlp", 256, 20),
    "ResNet-18 64 px, batch 32": ("resnet18-64", 32, 12),
    "GPT T = 256, batch 4": ("gpt-256", 4, 10),
    "AlexNet 224, batch 32": ("alexnet", 32, 8),
}
OPTIMIZERS: dict[str, Callable[[nn.Module], optim.Optimizer]] = {
    "SGD with momentum": lambda model: optim.SGD(model.parameters(), lr=1e-4, momentum=0.9),
    "AdamW": lambda model: optim.AdamW(model.parameters(), lr=1e-5),
    "AdamW(fused=True)": lambda model: optim.AdamW(model.parameters(), lr=1e-5, fused=True),
}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
ROWS = ("plain", "pull", "compact", "pull by torch", "loss")


@dataclass
class Row:
    """One network in training: `step()` is what is measured."""

    name: str
    model: nn.Module
    optimizer: optim.Optimizer
    inputs: Tensor
    labels: Tensor
    penalty: list[tuple[nn.Parameter, Tensor, Tensor]]
    inside: float = 0.0

    def watch(self, clock: Callable[[], float]) -> None:
        """Note the time that passes in the anchor's hooks."""

        def watched(hook: Callable[..., object]) -> Callable[..., object]:
            def timed(*arguments: object) -> object:
                begun = clock()
                returned = hook(*arguments)
                self.inside += clock() - begun
                return returned

            return timed

        hooks = self.optimizer._optimizer_step_post_hooks
        for key, hook in hooks.items():
            hooks[key] = watched(hook)

    def step(self, clock: Callable[[], float]) -> tuple[float, float]:
        """Seconds that a step takes by this clock, and how many of them pass in the anchor's hooks."""
        self.inside = 0.0
        compiled = native._pull
        if self.name == "pull by torch":
            native._pull = None
        begun = clock()
        self.optimizer.zero_grad()
        loss = functional.cross_entropy(self.model(self.inputs), self.labels)
        for parameter, target, omega in self.penalty:
            loss = loss + (omega * (parameter - target).pow(2)).sum()
        loss.backward()
        self.optimizer.step()
        taken = clock() - begun
        native._pull = compiled
        return taken, self.inside


def row(name: str, network: networks.Network, batch: int, make: Callable[[nn.Module], optim.Optimizer]) -> Row:
    """A network with random weights and an importance of the usual kind: most of it small."""
    torch.manual_seed(0)
    model = network.make().train()
    optimizer = make(model)
    inputs, labels = network.inputs(batch), torch.randint(0, 10, (batch,))
    sums = {name: torch.rand_like(p).pow_(4).detach() for name, p in model.named_parameters()}
    penalty: list[tuple[nn.Parameter, Tensor, Tensor]] = []
    if name == "loss":
        penalty = [(p, p.detach().clone(), sums[key]) for key, p in model.named_parameters()]
    elif name != "plain":
        anchor = Anchor(model, Importance(sums, 1.0), 1.0, compact=name == "compact")
        anchor.attach(optimizer)
    return Row(name, model, optimizer, inputs, labels, penalty)


def measured(case: str, optimizer: str, rounds: int, clock: str) -> dict[str, object]:
    """Medians of every row ÷ plain, with the quartiles of the ratio."""
    key, batch, _ = CASES[case]
    rows = [row(name, networks.NETWORKS[key], batch, OPTIMIZERS[optimizer]) for name in ROWS]
    for each in rows:
        each.watch(CLOCKS[clock])
    order = random.Random(0)
    times: dict[str, list[float]] = {name: [] for name in ROWS}
    inside: dict[str, list[float]] = {name: [] for name in ROWS}
    for turn in range(rounds + 1):
        for each in order.sample(rows, len(rows)):
            taken, hooked = each.step(CLOCKS[clock])
            if turn >= 1:
                times[each.name].append(taken)
                inside[each.name].append(taken / (taken - hooked))
    ratios = {name: [a / b for a, b in zip(times[name], times["plain"], strict=True)] for name in ROWS}
    parameters = sum(p.numel() for p in rows[0].model.parameters())
    return {
        "case": case,
        "optimizer": optimizer,
        "parameters": parameters,
        "rounds": rounds,
        "plain_ms": 1e3 * statistics.median(times["plain"]),
        "ratio": {name: statistics.median(ratios[name]) for name in ROWS[1:]},
        "quartiles": {name: statistics.quantiles(ratios[name], n=4)[::2] for name in ROWS[1:]},
        "inside": {name: statistics.median(inside[name]) for name in ROWS[1:] if name != "loss"},
    }


def environment() -> dict[str, object]:
    """What the figures depend on."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    return {
        "cpu": model,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "compiled": native.available(),
    }


def tables(found: dict[str, object]) -> str:
    """The tables, as Markdown."""
    runs: list[dict] = found["runs"]  # type: ignore[assignment]
    machine: dict = found["environment"]  # type: ignore[assignment]
    text = ""
    for optimizer in OPTIMIZERS:
        mine = [each for each in runs if each["optimizer"] == optimizer]
        if not mine:
            continue
        text += f"\n| {optimizer} | " + " | ".join(each["case"] for each in mine) + " |\n"
        text += "|---|" + "---|" * len(mine) + "\n"
        text += "| plain step, ms | " + " | ".join(f"{each['plain_ms']:.0f}" for each in mine) + " |\n"
        for name in ROWS[1:]:
            bold = "**" if name == "pull" else ""
            spans = ["–".join(f"{value:.2f}" for value in each["quartiles"][name]) for each in mine]
            cells = [f"{each['ratio'][name]:.2f} ({span})" for each, span in zip(mine, spans, strict=True)]
            text += f"| {name} | " + " | ".join(cells) + " |\n"
            if name != "loss":
                cells = [f"{bold}{each['inside'][name]:.3f}{bold}" for each in mine]
                text += f"| {name}, inside | " + " | ".join(cells) + " |\n"
    load = ", ".join(f"{value:.1f}" for value in machine["load_before"])
    return text + (
        f"\n{machine['cpu']}, {machine['threads']} {'thread' if machine['threads'] == 1 else 'threads'}, "
        f"{machine['clock']} time, load before {load}; torch {machine['torch']}, "
        f"Python {machine['python']}.\nMedians of the rounds (quartiles).\n"
    )


def render() -> None:
    """Put the tables between the two marks of `docs/performance.md`."""
    begin, end = "<!-- step: begin -->", "<!-- step: end -->"
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    PAGE.write_text(f"{before}{begin}\n{tables(found)}\n{end}{after}", encoding="utf-8")


def main() -> None:
    """Measure, or render what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", action="store_true", help="only rewrite the tables from the results")
    parser.add_argument("--rounds", type=float, default=1.0, help="times the usual number of rounds")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu: time in which this process ran")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.render:
        render()
        return
    warnings.simplefilter("ignore")
    found: dict[str, object] = {"environment": {**environment(), "clock": options.clock}, "runs": []}
    for case, (_, _, rounds) in CASES.items():
        if options.only.lower() not in case.lower():
            continue
        for optimizer in OPTIMIZERS:
            if "fused" in optimizer and "MLP" not in case:  # where the optimizer is not what takes the time
                continue
            result = measured(case, optimizer, max(3, round(rounds * options.rounds)), options.clock)
            found["runs"].append(result)  # type: ignore[attr-defined]
            figures: dict[str, dict[str, float]] = result  # type: ignore[assignment]
            ratios = "  ".join(
                f"{name} {ratio:.3f} ({figures['inside'].get(name, 0):.3f})" for name, ratio in figures["ratio"].items()
            )
            print(f"{case}, {optimizer}: plain {result['plain_ms']:.1f} ms  {ratios}", file=sys.stderr, flush=True)
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
