"""How much forgetting of a network with batch norm comes from its statistics, and not from its weights.

    python -m studies.norm_statistics --data DATA   # runs what is missing, and writes the table of docs/strength.md
    python -m studies.norm_statistics               # writes the table only

EfficientNet-Lite0, pretrained on ImageNet, learns an old task and then a new one: by fine-tuning and under MAS, with
batch-norm statistics that change and with frozen ones. Where they changed, the old task is tested again after its own
statistics were put back beside the new weights: the accuracy that this restores had been lost with them. λ is the
middle of the frontier's grid.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from forgetless import Anchor, files
from forgetless.lab.experiments.parts import images
from forgetless.lab.networks.pretrained import pretrained
from forgetless.learn.evaluation import evaluate
from forgetless.learn.heads import MultiHead
from forgetless.learn.recipe import Recipe
from forgetless.learn.seeding import derive
from forgetless.learn.task import Task
from forgetless.learn.train import learn
from forgetless.measure.estimators.mas import mas
from studies import blocks
from studies.given_anchor import GivenAnchor

PAIRS = (("scenes", "letters"), ("letters", "actions"))
SEEDS = (0, 1)
OUT = Path("results/norm-statistics/efficientnet-lite0.json")
SIZE, LIMIT, TESTED, MEASURED, BATCH, STRENGTH = 64, 300, 450, 100, 50, 0.1
RECIPE = Recipe(3e-3, 6, 16, clip=5.0, schedule="cosine")
#: What is run: the strength of MAS, and whether batch norm is frozen.
RUNS: dict[str, tuple[float | None, bool]] = {
    "fine-tuning": (None, False),
    "fine-tuning, batch norm frozen": (None, True),
    f"MAS, λ = {STRENGTH:g}": (STRENGTH, False),
    f"MAS, λ = {STRENGTH:g}, batch norm frozen": (STRENGTH, True),
}


def study(old: Task, new: Task, network: Callable[[], MultiHead], seed: int, recipe: Recipe = RECIPE) -> dict[str, Any]:
    """All runs of a pair with one seed: accuracy on both tasks, and on the old one with its statistics put back."""
    model = network()
    learn(
        model,
        [old],
        GivenAnchor(Anchor(model, None, 1.0)),
        dataclasses.replace(recipe, freeze_batchnorm=True),
        seed=seed,
    )
    before = model.state_dict()
    found: dict[str, Any] = {"before": evaluate(model, old, BATCH), "seed": seed, "runs": {}}
    importance = mas(
        model,
        old.train[0][:MEASURED],
        forward=lambda network, inputs: network(inputs, old.name),
        exclude="heads",
        progress=False,
    )
    for name, (strength, frozen) in RUNS.items():
        own = copy.deepcopy(model)
        anchor = Anchor(own, None, 1.0) if strength is None else Anchor(own, importance, strength)
        learn(
            own,
            [new],
            GivenAnchor(anchor),
            dataclasses.replace(recipe, freeze_batchnorm=frozen),
            seed=derive(seed, new.name),
        )
        result = {"old": evaluate(own, old, BATCH), "new": evaluate(own, new, BATCH)}
        put_back(own, before)
        result["put back"] = evaluate(own, old, BATCH)
        found["runs"][name] = result
    return found


@torch.no_grad()
def put_back(model: nn.Module, before: Mapping[str, torch.Tensor]) -> None:
    """Give the running statistics of the model's norms the values that they had."""
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.copy_(before[name])


def table(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Pair → its seeds, as Markdown: means in percent."""
    lines = [
        "| old → new, % | old, before | old, after | with its statistics put back | new |",
        "|---|---|---|---|---|",
    ]
    for pair, seeds in found.items():
        for name in RUNS:
            cells = [[each["before"] for each in seeds]]
            cells += [[each["runs"][name][part] for each in seeds] for part in ("old", "put back", "new")]
            shown = " | ".join(f"{100 * statistics.fmean(each):.1f}" for each in cells)
            lines.append(f"| {pair}: {name} | {shown} |")
    lost = explained(found)
    spread = "no forgetting" if lost is None else f"{100 * lost:.0f} % of what fine-tuning forgets"
    return "\n".join([*lines, "", f"In total, the changed batch-norm statistics account for {spread}."])


def explained(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> float | None:
    """The share of fine-tuning's forgetting that the statistics put back undo; None where nothing was forgotten."""
    runs = [(each["before"], each["runs"]["fine-tuning"]) for seeds in found.values() for each in seeds]
    forgotten = sum(before - run["old"] for before, run in runs)
    return sum(run["put back"] - run["old"] for _, run in runs) / forgotten if forgotten > 0 else None


def main(words: Sequence[str] | None = None) -> None:
    """The command; what `--out` holds already is kept."""
    parser = argparse.ArgumentParser(prog="python -m studies.norm_statistics", description=__doc__)
    parser.add_argument("--data", type=Path, help="a folder with the image datasets by name; none to run nothing")
    parser.add_argument("--out", type=Path, default=OUT, help="the file of results")
    parser.add_argument("--page", type=Path, default=Path("docs/strength.md"), help="the page that takes the table")
    options = parser.parse_args(words)
    found: dict[str, list[dict[str, Any]]] = files.read_sealed(options.out) if options.out.exists() else {}
    for seed in SEEDS if options.data is not None else ():
        for old, new in PAIRS:
            done = found.setdefault(f"{old} → {new}", [])
            if all(each["seed"] != seed for each in done):
                loaded = (images.load(options.data / name, size=SIZE, limit=LIMIT) for name in (old, new))
                tasks = [images.with_tests(task, TESTED) for task in loaded]
                done.append(study(tasks[0], tasks[1], lambda: pretrained("efficientnet-lite0"), seed))
                files.write_sealed(options.out, found)
                print(f"{old} → {new}, seed {seed}: {done[-1]['runs']}")
    blocks.inserted(options.page, "norm statistics", table(found))


if __name__ == "__main__":
    main()
