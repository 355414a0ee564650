"""What every method costs: the second of two tasks, learned by it ÷ learned by fine-tuning, interleaved in one run.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/methods.py --rounds 2   # writes benchmarks/results/methods.json
    .venv/bin/python benchmarks/methods.py --render                       # rewrites the table in docs/methods.md

The tasks are 1 and 2, and 3 and 4, of the demo's 5,000 digits; the network and the recipe are split MNIST's: MLP
400-400, Adam, batches of 128. *Training* is the steps; *measuring* is what comes after the last of them (Ω, memories,
autoencoders), in seconds of fine-tuning the same task. Methods take turns, round by round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import warnings
from pathlib import Path

from forgetless.lab.experiments import demo
from forgetless.lab.experiments.parts import digits
from forgetless.learn import methods
from forgetless.learn.optimizers import adam
from forgetless.learn.recipe import Recipe
from forgetless.learn.train import learn
from step import environment

sys.path.insert(0, str(Path(__file__).parents[1]))  # `studies` is not installed

from studies.blocks import inserted

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "methods.json"
PAGE = ROOT / "docs" / "methods.md"
RECIPE = Recipe(1e-3, 5, 128, optimizer=adam, warm_start=False)


def seconds(name: str) -> tuple[float, float]:
    """Of training on the second task, and of what follows."""
    first, second = demo.tasks()[:2]
    method, model = methods.create(name), digits.perceptron(400, 0)
    learn(model, [first], method, RECIPE, seed=0)
    found = learn(model, [second], method, RECIPE, seed=0).seconds
    return found["train"], found["measure"]


def table(found: dict[str, object]) -> str:
    """The results as Markdown."""
    rows: dict[str, dict[str, list[float]]] = found["rows"]  # type: ignore[assignment]
    machine: dict[str, object] = found["environment"]  # type: ignore[assignment]
    lines = ["| method | training ÷ fine-tuning | measuring ÷ fine-tuning |", "|---|---|---|"]
    for name, row in sorted(rows.items(), key=lambda each: statistics.median(each[1]["training"])):
        training, measuring = (statistics.median(row[part]) for part in ("training", "measuring"))
        lines.append(f"| {name} | {training:.2f} | {measuring:.2f} |")
    rounds = len(next(iter(rows.values()))["training"])
    threads = f"{machine['threads']} thread{'s' * (machine['threads'] != 1)}"
    lines += ["", f"{machine['cpu']}, {threads}, torch {machine['torch']}; medians of {rounds} rounds."]
    return "\n".join(lines)


def main() -> None:
    """Measure, or render what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", action="store_true", help="only rewrite the table from the results")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.render:
        inserted(PAGE, "methods", table(json.loads(RESULTS.read_text(encoding="utf-8"))))
        return
    warnings.simplefilter("ignore")
    rows: dict[str, dict[str, list[float]]] = {name: {"training": [], "measuring": []} for name in methods.METHODS}
    for number in range(options.rounds + 1):
        plain = sum(seconds("finetune")) if number else 1.0  # the first round only warms up
        for name, row in rows.items():
            training, measuring = seconds(name)
            if number:
                row["training"].append(training / plain)
                row["measuring"].append(measuring / plain)
        print(f"round {number} of {options.rounds}", file=sys.stderr, flush=True)
        if number:
            result = {"environment": environment(), "rows": rows}
            RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
