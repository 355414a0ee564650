"""Methods beside Avalanche's: the same stream, network, first weights, rates and batch sizes.

    pip install avalanche-lib
    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/beside_avalanche.py     # writes benchmarks/results/avalanche.json
    .venv/bin/python benchmarks/beside_avalanche.py --render              # rewrites the table in docs/methods.md

The stream is the demo's 5,000 digits in five pairs under one head of two answers (domain-incremental). Each library
draws its own batches and memories, so that only the distribution over seeds can agree; what is computed from given
weights and samples is compared to the last digit (`importance`).
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import logging
import statistics
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from forgetless.lab.experiments import demo
from forgetless.lab.experiments.parts import digits
from forgetless.lab.report.comparison import spread
from forgetless.lab.results.paired import paired
from forgetless.learn import metrics
from forgetless.learn.families.emulation import emulate
from forgetless.learn.heads import MultiHead
from forgetless.learn.methods import create
from forgetless.learn.recipe import Recipe
from forgetless.learn.task import Task
from forgetless.learn.train import learn
from forgetless.model.parameters import trainable
from step import environment

sys.path.insert(0, str(Path(__file__).parents[1]))  # `studies` is not installed

from studies.blocks import inserted

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "avalanche.json"
PAGE = ROOT / "docs" / "methods.md"
RECIPE = Recipe(0.02, 10, 32, warm_start=False)
MEMORY, TASKS = 200, 5
SEEDS = range(6)
#: Ours, with its settings; Avalanche's strategy, with its own.
PAIRS: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "finetune": ({}, "Naive", {}),
    "joint": ({}, "Cumulative", {}),
    # Ours counts the shared head once for every old task; theirs takes an α for each task of the stream.
    "lwf": ({"strength": 1.0}, "LwF", {"alpha": [float(old) for old in range(TASKS)], "temperature": 2.0}),
    "er": ({"memory": MEMORY}, "Replay", {"mem_size": MEMORY}),
    "a-gem": ({"memory": MEMORY}, "AGEM", {"patterns_per_exp": MEMORY // (TASKS - 1), "sample_size": 32}),
    # Ours sums Ω over tasks, theirs halves what was: at λ = 1 the explicit step diverges under the sum, not the mean.
    "mas-per-batch": ({"strength": 0.1, "code": "avalanche", "batch": 32}, "MAS", {"lambda_reg": 0.1, "alpha": 0.5}),
}


def network(seed: int) -> MultiHead:
    """The same first weights for both."""
    model = digits.perceptron(64, seed, "domain")
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model.grow("first", 2)
    return model


def ours(name: str, settings: dict[str, Any], tasks: list[Task], seed: int) -> list[list[float | None]]:
    """R of our method."""
    model = network(seed)
    first = tasks[0]
    settings = dict(settings)
    method = create(name, settings.pop("strength", None), **settings)
    named = [dataclasses.replace(first, name="first"), *tasks[1:]]
    model._first.clear()  # the head is there; its task is yet to come
    return learn(model, named, method, RECIPE, seed=seed).accuracy


def theirs(strategy: str, settings: dict[str, Any], tasks: list[Task], seed: int) -> list[list[float | None]]:
    """R of Avalanche's."""
    from avalanche.benchmarks import benchmark_from_datasets
    from avalanche.benchmarks.utils import _make_taskaware_tensor_classification_dataset as dataset
    from avalanche.training import supervised
    from avalanche.training.plugins import EvaluationPlugin

    torch.manual_seed(seed)
    model = plain(network(seed))
    train = [dataset(task.train[0], task.train[1], task_labels=0) for task in tasks]
    test = [dataset(task.test[0], task.test[1], task_labels=0) for task in tasks]
    made = getattr(supervised, strategy)(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=RECIPE.lr, momentum=0.9),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=RECIPE.batch_size,
        train_epochs=RECIPE.epochs,
        evaluator=EvaluationPlugin(loggers=[]),
        **settings,
    )
    matrix: list[list[float | None]] = []
    for number, experience in enumerate(benchmark_from_datasets(train=train, test=test).train_stream):
        made.optimizer.state.clear()  # a new optimizer for each task, as ours
        made.train(experience)
        row = [_right(model, *task.test) for task in tasks[: number + 1]]
        matrix.append([*row, *[None] * (len(tasks) - len(row))])
    return matrix


def plain(model: MultiHead) -> nn.Module:
    """The network as a module of inputs alone."""
    return nn.Sequential(model.backbone, model.head("first"))


@torch.no_grad()
def _right(model: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    return float((model.eval()(inputs).argmax(1) == labels).float().mean())


def importance(task: Task) -> float:
    """The largest difference between Avalanche's Ω and what we say that it computes, of the layer's largest."""
    from avalanche.benchmarks import benchmark_from_datasets
    from avalanche.benchmarks.utils import _make_taskaware_tensor_classification_dataset as dataset
    from avalanche.training.plugins import MASPlugin

    model = plain(network(0))
    parts = {name: [dataset(*part, task_labels=0)] for name, part in (("train", task.train), ("test", task.test))}

    class Strategy:
        """What the plugin asks of a strategy."""

        experience = next(iter(benchmark_from_datasets(**parts).train_stream))
        train_mb_size, device, optimizer = 32, "cpu", torch.optim.SGD(model.parameters(), lr=0.1)

    Strategy.model = model  # type: ignore[attr-defined]
    found = {name: each.data for name, each in MASPlugin()._get_importance(Strategy()).items()}
    own = emulate(copy.deepcopy(model), task.train[0], "avalanche", batch_size=32).mean()
    assert own.keys() == found.keys() == trainable(model).keys()
    return max(float((own[name] - found[name]).abs().max() / found[name].abs().max()) for name in own)


def table(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        "| method | ours | Avalanche's | ours − theirs, 95 % interval | forgetting, ours | theirs | seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, (_, strategy, _) in PAIRS.items():
        sides = found["runs"][name]
        average = [[100 * metrics.average_accuracy(matrix) for matrix in side] for side in sides]
        lost = [[100 * metrics.forgetting_mas(matrix) for matrix in side] for side in sides]
        gap = paired(dict(enumerate(average[0])), dict(enumerate(average[1])))
        cells = [spread(side) for side in average]
        cells.append(f"{gap.mean:+.2f} [{gap.low:+.2f}, {gap.high:+.2f}]")
        cells += [*(f"{statistics.fmean(side):.2f}" for side in lost), str(len(sides[0]))]
        lines.append(f"| `{name}` / `{strategy}` | " + " | ".join(cells) + " |")
    machine = found["environment"]
    lines += [
        "",
        f"Ω of `MAS` from the same weights and samples differs from our emulation of it by {found['importance']:.1e} "
        "of the layer's",
        f"largest. Avalanche {found['avalanche']}, torch {machine['torch']}.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Run both, or render what was run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", action="store_true", help="only rewrite the table from the results")
    parser.add_argument("--method", choices=list(PAIRS), action="append", help="only ours of this name; repeat it")
    options = parser.parse_args()
    if options.render:
        inserted(PAGE, "avalanche", table(json.loads(RESULTS.read_text(encoding="utf-8"))))
        return
    import avalanche

    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    tasks = demo.tasks()[:TASKS]
    sides: tuple[Callable[..., Any], Callable[..., Any]] = (ours, theirs)
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"runs": {}}
    runs: dict[str, Any] = known["runs"]
    result = {
        "environment": environment(),
        "avalanche": avalanche.__version__,
        "importance": importance(tasks[0]),
        "runs": runs,
    }
    for name, (own, strategy, settings) in PAIRS.items():
        if options.method and name not in options.method:
            continue
        named = ((name, own), (strategy, settings))
        runs[name] = [[side(*what, tasks, seed) for seed in SEEDS] for side, what in zip(sides, named, strict=True)]
        means = [[100 * metrics.average_accuracy(matrix) for matrix in side] for side in runs[name]]
        print(name, [spread(each) for each in means], file=sys.stderr, flush=True)
        RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
