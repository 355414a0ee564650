"""Experts of one backbone merged into one, by every method: how much of each expert's accuracy is left.

    python -m studies.merging --data DATA   # runs what is missing, and writes the tables of docs/merging.md
    python -m studies.merging               # writes the tables only

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

from forgetless import edit, files
from forgetless.edit.merging import METHODS
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
from studies import blocks

TASKS = ("letters", "actions", "scenes", "digits")
SEEDS = (0, 1, 2)
OUT, PAGE = Path("results/merging/squeezenet.json"), Path("docs/merging.md")
SIZE, LIMIT, TESTED, MEASURED, BATCH = 64, 600, 300, 200, 64
RECIPE = Recipe(2e-3, 12, 32, clip=5.0, schedule="cosine")
_SUMMED, _AVERAGED = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0), (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0)

#: Row of the table → the method, its settings, and the λ to choose from (none: nothing is chosen).
ROWS: dict[str, tuple[str, dict[str, Any], Sequence[float]]] = {
    "mean": ("mean", {}, ()),
    "fisher": ("fisher", {}, ()),
    "fisher, as measured (IMM's mode)": ("fisher", {"scale_importance": "none"}, ()),
    "mas": ("mas", {}, ()),
    "mas, as measured": ("mas", {"scale_importance": "none"}, ()),
    "task-arithmetic": ("task-arithmetic", {}, ()),
    "task-arithmetic, λ chosen": ("task-arithmetic", {}, _SUMMED),
    "ties": ("ties", {}, ()),
    "ties, λ chosen": ("ties", {}, _AVERAGED),
    "dare-linear": ("dare-linear", {}, ()),
    "dare-linear, λ chosen": ("dare-linear", {}, _SUMMED),
    "dare-ties": ("dare-ties", {}, ()),
    "dare-ties, λ chosen": ("dare-ties", {}, _SUMMED),
}
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
    chosen = stratified(own.train[1], min(MEASURED, len(own.train[1])), seed)
    some = dataclasses.replace(own, train=(own.train[0][chosen], own.train[1][chosen]))
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

    def merged(row: str, scale: float | None) -> dict[str, Tensor]:
        method, settings, _ = ROWS[row]
        own = METHODS[method]
        return edit.merged(
            [_backbone(each.network) for each in experts],
            base=base if own.needs_base else None,
            method=method,
            importances=[each.omegas[method] for each in experts] if own.estimators else None,
            scale=scale,
            **{**({"seed": seed} if "seed" in own.defaults else {}), **settings},
        )

    held_out, tests = [each.task for each in experts], [each.test for each in experts]
    rows: dict[str, Any] = {
        EXPERTS: {"test": [evaluate(each.network, each.test, BATCH) for each in experts]},
        START: {"test": accuracies(base, tests)},
    }
    for row, (_, _, scales) in ROWS.items():
        tried = {scale: statistics.fmean(accuracies(merged(row, scale), held_out)) for scale in scales}
        chosen = max(tried, key=lambda scale: tried[scale]) if tried else None
        rows[row] = {"test": accuracies(merged(row, chosen), tests)}
        if chosen is not None:
            rows[row] |= {"λ": chosen, "held out": {f"{scale:g}": share for scale, share in tried.items()}}
    return {"seed": seed, "rows": rows}


def _backbone(model: MultiHead) -> dict[str, Tensor]:
    return {name: each.clone() for name, each in model.state_dict().items() if name.startswith("backbone.")}


def table(found: Mapping[str, Any]) -> str:
    """Markdown: percent of test pictures, means over the seeds."""
    tasks, seeds = found["tasks"], found["seeds"]
    lines = [
        f"| test accuracy, % | {' | '.join(tasks)} | mean ± s.d. over seeds | of the experts' | λ |",
        "|---" * (len(tasks) + 4) + "|",
    ]
    top = statistics.fmean(statistics.fmean(each["rows"][EXPERTS]["test"]) for each in seeds)
    for row in (EXPERTS, *ROWS, START):
        runs = [each["rows"][row] for each in seeds]
        means = [statistics.fmean(run["test"]) for run in runs]
        cells = [f"{100 * statistics.fmean(column):.1f}" for column in zip(*(run["test"] for run in runs), strict=True)]
        spread = f" ± {100 * statistics.stdev(means):.1f}" if len(means) > 1 else ""
        chosen = ", ".join(f"{run['λ']:g}" for run in runs if "λ" in run)
        lines.append(
            f"| {row} | {' | '.join(cells)} | {100 * statistics.fmean(means):.1f}{spread} | "
            f"{100 * statistics.fmean(means) / top:.0f} % | {chosen or '–'} |"
        )
    return "\n".join([*lines, "", *_beside_the_mean(seeds)])


def _beside_the_mean(seeds: Sequence[Mapping[str, Any]]) -> list[str]:
    """Paired by seed: how many points each row is above the plain mean."""
    lines = ["| points above `mean`, seed by seed | " + " | ".join(f"seed {each['seed']}" for each in seeds) + " |"]
    lines.append("|---" * (len(seeds) + 1) + "|")
    for row in ROWS:
        if row != "mean":
            gains = [
                100 * (statistics.fmean(each["rows"][row]["test"]) - statistics.fmean(each["rows"]["mean"]["test"]))
                for each in seeds
            ]
            lines.append(f"| {row} | {' | '.join(f'{gain:+.1f}' for gain in gains)} |")
    return lines


def methods() -> str:
    """Markdown: every method with its formula, settings and paper."""
    signs = {"scale": "λ", "alpha": "α"}
    lines = ["| method | formula | settings, with defaults | paper |", "|---|---|---|---|"]
    for each in METHODS.values():
        own = ["weights 1"] if each.models is None else []
        own += [f"{signs.get(name, name)} {_plain(value)}" for name, value in each.defaults.items()]
        own += ["importances scaled by their mean"] if each.estimators else []
        lines.append(f"| `{each.name}` | {each.formula} | {', '.join(own)} | {each.paper} |")
    return "\n".join(lines)


def _plain(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def write(page: Path, found: Mapping[str, Any]) -> None:
    """Put the tables into the page.

    Raises:
        ForgetlessError: the page lacks a place for one.
    """
    blocks.inserted(page, "merging methods", methods())
    if found["seeds"]:
        blocks.inserted(page, "merging", table(found))


def main(words: Sequence[str] | None = None) -> None:
    """The command; what `--out` holds already is kept."""
    parser = argparse.ArgumentParser(prog="python -m studies.merging", description=__doc__)
    parser.add_argument("--data", type=Path, help="a folder with the image datasets by name; none to run nothing")
    parser.add_argument("--out", type=Path, default=OUT, help="the file of results")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page that takes the tables")
    options = parser.parse_args(words)
    try:
        found: dict[str, Any] = {"tasks": list(TASKS), "seeds": []}
        if options.out.exists():
            found = files.read_sealed(options.out)
        if options.data is not None:
            loaded = [images.load(folder, size=SIZE, limit=LIMIT) for folder in images.sets(options.data, TASKS)]
            tasks = [images.with_tests(task, TESTED) for task in loaded]
            for seed in SEEDS:
                if all(each["seed"] != seed for each in found["seeds"]):
                    found["seeds"].append(study(tasks, lambda: pretrained("squeezenet"), seed))
                    files.write_sealed(options.out, {**found, "environment": environment()})
                    print(table(found), flush=True)
        write(options.page, found)
    except ForgetlessError as error:
        parser.exit(2, f"forgetless: {error}\n")


if __name__ == "__main__":
    main()
