"""Experts of one backbone merged into one, by every method: how much of each expert's accuracy is left.

    python -m studies.merging_vision --data DATA --count 4   # the first four datasets; runs what is missing
    python -m studies.merging_vision --data DATA             # all eight
    python -m studies.merging                                # tables of docs/merging.md

SqueezeNet, pretrained on ImageNet, is fine-tuned on each dataset by itself. The backbones are merged; every dataset
keeps the head that was trained with its expert. A fifth of the training pictures is left out of training, and λ is
chosen by the mean accuracy on it, over all datasets. Test pictures choose nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.lab.datasets.reading.pictures import stratified
from forgetless.lab.experiments.parts import images
from forgetless.lab.networks.pretrained import pretrained
from forgetless.lab.running.environment import environment
from forgetless.learn.evaluation import evaluate
from forgetless.learn.families.information import information
from forgetless.learn.heads import MultiHead
from forgetless.learn.methods import create
from forgetless.learn.recipe import Recipe
from forgetless.learn.task import Task
from forgetless.learn.train import learn
from forgetless.measure.estimators.mas import mas
from forgetless.measure.importance import Importance
from studies.merging_rows import ROWS, Experts, beside_the_mean, between, chosen

TASKS = ("letters", "actions", "scenes", "digits", "textures", "birds", "groceries", "flowers")
SEEDS = (0, 1, 2)
#: How many of them are merged, the first ones.
COUNTS = (4, 8)
OUT = Path("results/merging")
SIZE, LIMIT, TESTED, MEASURED, BATCH = 64, 600, 300, 200, 64
RECIPE = Recipe(2e-3, 12, 32, clip=5.0, schedule="cosine")
EXPERTS, START = "experts, a backbone each", "pretrained backbone"


@dataclasses.dataclass(frozen=True)
class Expert:
    """A network that was fine-tuned on one task.

    Attributes:
        task: the task; its test part is what was left out of training.
        test: the same task with its test pictures.
        network: the network, with one head.
        omegas: method → importance of the backbone.
    """

    task: Task
    test: Task
    network: MultiHead
    omegas: Mapping[str, Importance]


def expert(task: Task, network: Callable[[], MultiHead], seed: int, recipe: Recipe = RECIPE) -> Expert:
    """Fine-tune on four fifths of a task's training pictures, and measure what matters on them."""
    inputs, labels = task.train
    left_out = torch.zeros(len(labels), dtype=torch.bool)
    left_out[stratified(labels, len(labels) // 5, seed)] = True
    own = dataclasses.replace(
        task, train=(inputs[~left_out], labels[~left_out]), test=(inputs[left_out], labels[left_out])
    )
    model = network()
    learn(model, [own], create("finetune"), recipe, seed=seed)
    model.eval()
    seen = stratified(own.train[1], min(MEASURED, len(own.train[1])), seed)
    some = dataclasses.replace(own, train=(own.train[0][seen], own.train[1][seen]))
    omegas = {
        "fisher": information(model, some, 1),
        "mas": mas(
            model,
            some.train[0],
            forward=lambda network, inputs: network(inputs, own.name),
            exclude="heads",
            progress=False,
        ),
    }
    return Expert(own, task, model, omegas)


def study(
    tasks: Sequence[Task], network: Callable[[], MultiHead], seed: int, recipe: Recipe = RECIPE
) -> dict[str, Any]:
    """Every row of the table with one seed: test accuracy on each task, and what was chosen."""
    experts = [expert(task, network, seed, recipe) for task in tasks]
    base = _backbone(network())
    joint = network()
    for each in experts:
        joint.grow(each.task.name, each.network.width(each.task.name))
        joint.head(each.task.name).load_state_dict(each.network.head(each.task.name).state_dict())

    def accuracies(weights: Mapping[str, Tensor], parts: Sequence[Task]) -> list[float]:
        joint.load_state_dict({**joint.state_dict(), **weights})
        return [evaluate(joint, part, BATCH) for part in parts]

    held_out, tests = [each.task for each in experts], [each.test for each in experts]
    rows: dict[str, Any] = {
        EXPERTS: {"test": [evaluate(each.network, each.test, BATCH) for each in experts]},
        START: {"test": accuracies(base, tests)},
    }
    omegas = {name: [each.omegas[name] for each in experts] for name in experts[0].omegas}
    every = Experts(base, [_backbone(each.network) for each in experts], omegas, seed)
    for name, row in ROWS.items():
        state, tried = chosen(every, row, lambda state: statistics.fmean(accuracies(state, held_out)))
        rows[name] = {"test": accuracies(state, tests), **tried}
    return {"seed": seed, "rows": rows}


def _backbone(model: MultiHead) -> dict[str, Tensor]:
    return {name: each.clone() for name, each in model.state_dict().items() if name.startswith("backbone.")}


def table(found: Mapping[str, Any]) -> str:
    """Markdown: percent of test pictures, means over the seeds; and the rows beside the mean."""
    tasks, seeds = found["tasks"], found["seeds"]
    lines = [
        f"| test accuracy, % | {' | '.join(tasks)} | mean ± s.d. over seeds | of the experts' | λ |",
        "|---" * (len(tasks) + 4) + "|",
    ]
    means = {
        row: {each["seed"]: 100 * statistics.fmean(each["rows"][row]["test"]) for each in seeds}
        for row in (EXPERTS, *ROWS, START)
    }
    top = statistics.fmean(means[EXPERTS].values())
    for row, own in means.items():
        runs = [each["rows"][row] for each in seeds]
        cells = [f"{100 * statistics.fmean(column):.1f}" for column in zip(*(run["test"] for run in runs), strict=True)]
        lambdas = ", ".join(f"{run['λ']:g}" for run in runs if "λ" in run)
        share = f"{100 * statistics.fmean(own.values()) / top:.0f} %"
        lines.append(f"| {row} | {' | '.join(cells)} | {between([*own.values()], 1)} | {share} | {lambdas or '–'} |")
    return "\n".join([*lines, "", *beside_the_mean({row: means[row] for row in ROWS}, "points above `mean`", 1)])


def named(count: int) -> str:
    """The file of results on that many datasets."""
    return f"vision-{count}.json"


def main(words: Sequence[str] | None = None) -> None:
    """The command; what is in `--out` already is kept."""
    parser = argparse.ArgumentParser(prog="python -m studies.merging_vision", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a folder with the image datasets by name")
    parser.add_argument("--count", type=int, choices=COUNTS, default=COUNTS[-1], help="how many datasets")
    parser.add_argument("--out", type=Path, default=OUT, help="the folder of results")
    options = parser.parse_args(words)
    names, out = TASKS[: options.count], options.out / named(options.count)
    try:
        found: dict[str, Any] = {"tasks": list(names), "seeds": []}
        if out.exists():
            found = files.read_sealed(out)
        loaded = [images.load(folder, size=SIZE, limit=LIMIT) for folder in images.sets(options.data, names)]
        tasks = [images.with_tests(task, TESTED) for task in loaded]
        for seed in SEEDS:
            if all(each["seed"] != seed for each in found["seeds"]):
                found["seeds"].append(study(tasks, lambda: pretrained("squeezenet"), seed))
                files.write_sealed(out, {**found, "environment": environment()})
                print(table(found), flush=True)
    except ForgetlessError as error:
        parser.exit(2, f"forgetless: {error}\n")


if __name__ == "__main__":
    main()
