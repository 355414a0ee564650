"""Does the strength "auto" gain by being told the length of the training? On what is kept for development only.

    python -m studies.evidence.length --data DATA --texts TEXTS --pictures PICTURES --work WORK   # runs what is missing
    python -m studies.evidence.length   # writes the table of docs/evidence.md

WORK is that of `studies.evidence.language`, with its base. A training is a file in WORK; a run that was stopped
continues after the last one. PICTURES holds the folders scenes, textures and letters.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from forgetless import Anchor, HoldShare, files
from studies import blocks
from studies.evidence import vision_regime
from studies.evidence.language import Lab
from studies.evidence.vision_scene import Scene, prepare, right
from studies.given_anchor import GivenAnchor
from studies.repair_tuning import tune

OUT, PAGE = Path("results/evidence/length.json"), Path("docs/evidence.md")
#: Steps and the peak of the rate with which Shakespeare is learned; seeds of the pairs of pictures.
TEXTS, SEEDS = ((20, 1e-3), (60, 1e-3), (240, 3e-4)), (0, 1)
#: What chooses λ, from what the training is worth in steps at the peak rate; None to leave all weights free.
Dial = Callable[[float], HoldShare | None]
FREE = "fine-tuning"
DIALS: dict[str, Dial] = {
    FREE: lambda steps: None,
    "told the length": lambda steps: HoldShare(0.5, steps=steps),
    "not told": lambda steps: HoldShare(0.5),
}


@dataclass(frozen=True)
class Training:
    """A training of the study.

    Attributes:
        name: what is learned, and for how long.
        before: the old skill and the new one at its start.
        run: trains under a dial; gives the old skill and the new one, and `Σ |θ − θ*|` of what the anchor holds.
    """

    name: str
    before: Callable[[], tuple[float, float]]
    run: Callable[[Dial], tuple[float, float, float]]


def on_text(lab: Lab, steps: int, rate: float) -> Training:
    """The small language model learns Shakespeare; skills are bits per character."""
    bench = lab.bench("shakespeare", 0, rate=rate)
    domain = dataclasses.replace(bench.domain, steps=steps)

    def skills(model: Any) -> tuple[float, float]:
        found = lab.figures(model, bench)
        return found["general"], found["new"]

    def run(dial: Dial) -> tuple[float, float, float]:
        model, chosen = lab.load(), dial(steps / 2)
        anchor = Anchor(model, bench.base.omega("mas"), 0.0 if chosen is None else chosen)
        tune(model, domain, bench.seed, rate=rate, anchor=anchor)
        return (*skills(model), moved(model, anchor.weights))

    return Training(f"Shakespeare, {steps} steps of AdamW", lambda: skills(lab.load()), run)


def on_pictures(scene: Scene, name: str) -> Training:
    """SqueezeNet learns the new task of a scene; skills are accuracies."""

    def run(dial: Dial) -> tuple[float, float, float]:
        chosen, anchors = dial(scene.steps), list[Anchor]()

        def method(model: nn.Module) -> GivenAnchor:
            anchors.append(Anchor(model, scene.omegas["mas"], 0.0 if chosen is None else chosen))
            return GivenAnchor(anchors[0])

        model = scene.trained(method)
        old, new = (float(right(model, task).mean()) for task in (scene.old, scene.new))
        return old, new, moved(model, anchors[0].weights)

    before = float(right(scene.model, scene.old).mean())
    return Training(name, lambda: (before, 0.0), run)


def scene_of(data: Path, pair: tuple[str, str], seed: int, work: Path) -> Scene:
    """A pair in the regime that was chosen for the study of pictures."""
    regime = files.read_sealed(vision_regime.OUT)
    recipe = vision_regime.recipe(regime["epochs"], regime["rate"])
    return prepare(data, pair, seed, work / f"{'-'.join(pair)}-{seed}", recipe)


def moved(model: nn.Module, weights: Mapping[str, Tensor]) -> float:
    """`Σ |θ − θ*|` over the anchored weights."""
    named = dict(model.named_parameters())
    return sum(float((named[name].detach() - each).abs().sum(dtype=torch.float64)) for name, each in weights.items())


def run(trainings: Iterable[Training], dials: Mapping[str, Dial], work: Path) -> list[dict[str, Any]]:
    """Run what is missing; a row for every training under every dial."""
    rows = []
    for training in trainings:
        for kind, dial in dials.items():
            path = work / "length" / f"{training.name}, {kind}.json"
            if not path.exists():
                before, (old, new, way) = training.before(), training.run(dial)
                facts = {"before old": before[0], "before new": before[1], "old": old, "new": new, "moved": way}
                rounded = {name: float(f"{value:.6g}") for name, value in facts.items()}
                files.write_json(path, {"training": training.name, "kind": kind, **rounded})
                print(training.name, kind, rounded, flush=True)
            rows.append(files.read_json(path))
    return rows


def gained(row: Mapping[str, Any], free: Mapping[str, Any]) -> tuple[float, float]:
    """What a training on text wins back of fine-tuning's loss, and what it keeps of fine-tuning's gain, in percent."""
    back = (free["old"] - row["old"]) / (free["old"] - row["before old"])
    kept = (row["before new"] - row["new"]) / (row["before new"] - free["new"])
    return 100 * back, 100 * kept


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown: of text what is won back and kept of the new skill, of pictures the accuracies."""
    lines = ["| training | length | moved, of fine-tuning's way | old skill | new skill |", "|---|---|---|---|---|"]
    free = {row["training"]: row for row in rows if row["kind"] == FREE}
    for row in rows:
        end = free[row["training"]]
        if row is end:
            continue
        if row["before new"]:  # bits per character: less is better
            back, kept = gained(row, end)
            old, new = f"{back:.0f} % won back", f"{kept:.0f} %"
        else:
            old = f"{100 * row['old']:.1f} (before {100 * row['before old']:.1f}, fine-tuned {100 * end['old']:.1f})"
            new = f"{100 * row['new']:.1f} (fine-tuned {100 * end['new']:.1f})"
        share = f"{100 * row['moved'] / end['moved']:.0f} %"
        lines.append(f"| {row['training']} | {row['kind']} | {share} | {old} | {new} |")
    return "\n".join(lines)


def write(results: Path = OUT, page: Path = PAGE) -> None:
    """Put the table into the page."""
    blocks.inserted(page, "length", table(files.read_sealed(results)["rows"]))


def asked(study: str, about: str | None, words: Sequence[str] | None) -> argparse.Namespace:
    """The command line of a study that learns texts and pictures: `data` is None where nothing is to be run."""
    parser = argparse.ArgumentParser(prog=f"python -m studies.evidence.{study}", description=about)
    parser.add_argument("--data", type=Path, help="the folder of texts; none to run nothing")
    parser.add_argument("--texts", type=Path, help="the folder of texts from packages")
    parser.add_argument("--pictures", type=Path, help="the folder of datasets of pictures by name")
    parser.add_argument("--work", type=Path, default=Path("runs/evidence"), help="the folder of models and trainings")
    options = parser.parse_args(words)
    if options.data is not None:
        torch.set_num_threads(1)
        warnings.simplefilter("ignore")
    return options


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    options = asked("length", __doc__, words)
    if options.data is not None:
        lab = Lab(options.data, options.texts, options.work)
        rows = run((on_text(lab, *each) for each in TEXTS), DIALS, options.work)
        pairs = (
            on_pictures(
                scene_of(options.pictures, pair, seed, options.work / "pairs"), f"{' → '.join(pair)}, seed {seed}, SGD"
            )
            for pair, seed in itertools.product(vision_regime.PAIRS, SEEDS)
        )
        rows += run(pairs, DIALS, options.work)
        files.write_sealed(OUT, {"rows": rows})
    write()


if __name__ == "__main__":
    main()
