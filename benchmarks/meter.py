"""What watching costs: seconds in which meter and dial ask ÷ those of the training itself, in the same run.

    OMP_NUM_THREADS=2 .venv/bin/python benchmarks/meter.py              # writes benchmarks/results/meter.json
    .venv/bin/python benchmarks/meter.py --render                       # rewrites the table in docs/strength.md

A network is trained for as many steps as the watcher, at its own pace, needs for three askings. Both kinds of seconds
come from the same run (`ForgettingMeter.cost`, `KeepAgreement.cost`), so that what else the machine does hits both.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from pathlib import Path

import torch
from torch import optim
from torch.nn import functional

import networks
from forgetless import Anchor, ForgettingMeter, Importance, KeepAgreement
from step import CASES, environment

sys.path.insert(0, str(Path(__file__).parents[1]))  # `studies` is not installed

from studies.blocks import inserted

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "meter.json"
PAGE = ROOT / "docs" / "strength.md"
PROBES, ASKINGS = 128, 3
WATCHERS = ("ForgettingMeter", "ForgettingMeter(roll_back=…)", "KeepAgreement")


def cost(watcher: str, key: str, batch: int) -> float:
    """The share of one training of the network that the watcher took."""
    torch.manual_seed(0)
    network = networks.NETWORKS[key]
    model = network.make().train()
    optimizer = optim.SGD(model.parameters(), lr=1e-5, momentum=0.9)
    inputs, labels, probes = network.inputs(batch), torch.randint(0, 10, (batch,)), network.inputs(PROBES)
    watch: ForgettingMeter | KeepAgreement
    if watcher == "KeepAgreement":
        sums = {name: torch.rand_like(p).pow_(4).detach() for name, p in model.named_parameters()}
        watch = KeepAgreement(0.01, probes, freeze_batchnorm=False)
        Anchor(model, Importance(sums, 1.0), watch).attach(optimizer)
    else:
        # Far below what random labels do to it, so that it never has anything to undo.
        watch = ForgettingMeter(model, probes, roll_back=0.01 if "roll_back" in watcher else False)
        watch.attach(optimizer)
    while len(watch.history) < ASKINGS:
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    return watch.cost


def table(found: dict[str, object]) -> str:
    """The results as Markdown."""
    cases: dict[str, dict[str, float]] = found["cases"]  # type: ignore[assignment]
    machine: dict[str, object] = found["environment"]  # type: ignore[assignment]
    lines = ["| asking ÷ training, % | " + " | ".join(cases) + " |", "|---" * (len(cases) + 1) + "|"]
    for watcher in WATCHERS:
        shares = [cases[case].get(watcher) for case in cases]
        cells = ["–" if share is None else f"{100 * share:.1f}" for share in shares]
        lines.append(f"| `{watcher}` | " + " | ".join(cells) + " |")
    lines += ["", f"{machine['cpu']}, {machine['threads']} threads, torch {machine['torch']}."]
    return "\n".join(lines)


def main() -> None:
    """Measure, or render what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", action="store_true", help="only rewrite the table from the results")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    options = parser.parse_args()
    if options.render:
        inserted(PAGE, "meter", table(json.loads(RESULTS.read_text(encoding="utf-8"))))
        return
    warnings.simplefilter("ignore")
    cases: dict[str, dict[str, float]] = json.loads(RESULTS.read_text())["cases"] if RESULTS.exists() else {}
    for case, (key, batch, _) in CASES.items():
        if options.only.lower() not in case.lower() or (case in cases and not options.only):
            continue
        for watcher in WATCHERS:
            cases.setdefault(case, {})[watcher] = cost(watcher, key, batch)
        print(case, cases[case], os.getloadavg(), file=sys.stderr, flush=True)
        RESULTS.write_text(
            json.dumps({"environment": environment(), "cases": cases}, indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
