"""The same repairs for a vision network: it learned one task after another and gets the old one back.

    python -m studies.repair_vision --data DATA   # runs what is missing, and writes docs/repair.md
    python -m studies.repair_vision --data DATA --network efficientnet-lite0 --seeds 2
    python -m studies.repair_vision               # writes the page only

The pairs of tasks and the recipe are those of `studies.frontier`. A network pretrained on ImageNet learns an old task;
fine-tuning on a new one makes it forget that; repairs edit the backbone between the two. Heads stay as they are.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from forgetless import Anchor, HoldShare, files
from forgetless.learn.evaluation import evaluate
from forgetless.learn.heads import MultiHead
from forgetless.learn.methods.frozen import Frozen
from forgetless.learn.recipe import Recipe
from forgetless.learn.seeding import derive
from forgetless.learn.train import learn
from studies import blocks, frontier
from studies.given_anchor import GivenAnchor
from studies.repair import SETTINGS
from studies.repair_frontier import METHODS, Tuning, levels, said, tuning
from studies.repair_methods import REPAIRS, SHARES

#: Network → the file of its results, beside one another.
NETWORKS = {"squeezenet": "vision.json", "efficientnet-lite0": "vision-efficientnet-lite0.json"}
OUT, PAGE = Path("results/repair"), Path("docs/repair.md")


def study(scene: frontier.Scene, seed: int, recipe: Recipe = frontier.RECIPE) -> list[dict[str, Any]]:
    """The accuracy on both tasks: before, after fine-tuning, after every repair, and under MAS in training."""

    def trained(method: Any) -> MultiHead:
        model = copy.deepcopy(scene.model)
        learn(model, [scene.new], method(model), recipe, seed=seed)
        model.freeze(False)
        return model

    def row(method: str, setting: float, model: MultiHead) -> dict[str, Any]:
        with torch.no_grad():
            old, new = (evaluate(model, task, frontier.BATCH) for task in (scene.old, scene.new))
        return {"method": method, "setting": setting, "old": old, "new": new}

    tuned = trained(lambda model: GivenAnchor(Anchor(model, None, 1.0)))
    rows = [row("base", 0, trained(lambda model: Frozen())), row("fine-tuned", 0, tuned)]
    omega = scene.omegas["exact"]
    first, last = (
        {f"backbone.{name}": each.detach() for name, each in model.backbone.named_parameters()}
        for model in (scene.model, tuned)
    )
    for method, (settings, repair) in REPAIRS.items():
        for setting in settings:
            model = copy.deepcopy(tuned)
            model.load_state_dict(repair(omega, first, last, setting), strict=False)
            rows.append(row(method, setting, model))
    steps = -(-len(scene.new.train[0]) // recipe.batch_size) * recipe.epochs
    for share in SHARES:
        # A cosine that falls to 0 counts half; see HoldShare.
        dial = HoldShare(share, steps=steps / 2, of="weights")
        rows.append(row("MAS in training", share, trained(lambda model: GivenAnchor(Anchor(model, omega, dial)))))  # noqa: B023
    return rows


def write(out: Path, page: Path) -> None:
    """Write the tables of a folder of results into their block of the page; nothing where there are none."""
    lines = list[str]()
    for network, name in NETWORKS.items():
        if (out / name).exists():
            runs = files.read_sealed(out / name)["tunings"]
            found = [tuning(each["pair"], each["rows"], "new", ("old",), 0.0) for each in runs]
            read = [each for each in found if each is not None]
            lines += _lines(read) if network == "squeezenet" else _beside(network, read)
    if lines:
        blocks.inserted(page, "vision", blocks.wrapped("\n".join(lines)))


_ABOUT = """SqueezeNet, pretrained on ImageNet, learns an old task from 300 pictures and then a new one, as in the study
of the strength ([frontier](strength.md)); {count} fine-tunings, of three pairs of tasks. Every repair edits the
backbone between the two: 26 convolutions (9 of them 3 × 3, which DG-Hard looks at as [o, i·h·w]) and their biases.
Heads stay as they were learned, so a backbone that goes back suits the new head less. Ω is MAS on unlabeled pictures of
the old task. The settings are those of the language model's study."""
_READ = """Won back at a share of the fine-tuned model's accuracy on the new task, read as above; 100 is the accuracy on
the old task before. In brackets the smallest and largest difference from WiSE-FT in one fine-tuning."""


def _lines(tunings: Sequence[Tuning]) -> Iterator[str]:
    yield from (_ABOUT.format(count=len(tunings)).replace("\n", " "), "")
    yield from blocks.console("python -m studies.repair_vision --data DATA")
    yield from _ends(tunings)
    for method, setting in ((name, each) for name in METHODS for each in SETTINGS[name]):
        title = f"{method}, {METHODS[method][2]} {setting:g}"
        yield f"| {title} | {' | '.join(_cell(tunings, pair, method, setting) for pair in PAIRS)} |"
    yield from ("", _READ.replace("\n", " "))
    yield from ("", *levels(tunings, "old", "the old task"), "", said(tunings, "old", "the old task"))


def _beside(network: str, tunings: Sequence[Tuning]) -> Iterator[str]:
    forgot = [each for each in tunings if each.tuned["old"] < each.base["old"]]
    left_out = f" The second table leaves out {len(tunings) - len(forgot)}, which forgot nothing."
    about = f"The same with {network}, {len(tunings)} fine-tunings; the recipe was not changed for it."
    yield from ("", about + (left_out if len(forgot) < len(tunings) else ""), "")
    yield from blocks.console(f"python -m studies.repair_vision --data DATA --network {network} --seeds 2")
    yield from _ends(tunings)
    if forgot:
        yield from ("", *levels(forgot, "old", "the old task"), "", said(forgot, "old", "the old task"))


def _ends(tunings: Sequence[Tuning]) -> Iterator[str]:
    yield f"| accuracy, old / new, %; means of {len(tunings)} fine-tunings | " + " | ".join(PAIRS) + " |"
    yield "|---|" + "---|" * len(PAIRS)
    for method, title in (("base", "frozen backbone"), ("fine-tuned", "fine-tuned")):
        yield f"| {title} | {' | '.join(_cell(tunings, pair, method, 0) for pair in PAIRS)} |"


def _cell(tunings: Sequence[Tuning], pair: str, method: str, setting: float) -> str:
    own = [each for each in tunings if each.name == pair]
    ends = {"base": [each.base for each in own], "fine-tuned": [each.tuned for each in own]}
    rows = ends.get(method) or [row for each in own for row in each.of(method) if row["setting"] == setting]
    if not rows:
        return "–"
    return " / ".join(f"{100 * sum(row[key] for row in rows) / len(rows):.1f}" for key in ("old", "new"))


PAIRS = tuple(f"{old} → {new}" for old, new in frontier.PAIRS)


def main(words: Sequence[str] | None = None) -> None:
    """The command; what `--out` holds already is kept."""
    parser = argparse.ArgumentParser(prog="python -m studies.repair_vision", description=__doc__)
    parser.add_argument("--data", type=Path, help="a folder with the image datasets by name; none to run nothing")
    parser.add_argument("--network", choices=NETWORKS, default="squeezenet", help="which one learns")
    parser.add_argument("--seeds", type=int, default=3, help="how many of each pair of tasks")
    parser.add_argument("--out", type=Path, default=OUT, help="the folder of results")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page that takes the tables")
    options = parser.parse_args(words)
    path = options.out / NETWORKS[options.network]
    found = files.read_sealed(path) if path.exists() else {"tunings": []}
    for seed in range(options.seeds) if options.data is not None else ():
        for old, new in frontier.PAIRS:
            about = {"pair": f"{old} → {new}", "seed": seed}
            if all({**each, **about} != each for each in found["tunings"]):
                with tempfile.TemporaryDirectory() as cache:
                    started = (options.data, old, new, derive(seed, old), Path(cache))
                    scene = frontier.prepare(*started, network=options.network, kinds=["exact"])
                found["tunings"].append({**about, "rows": study(scene, derive(seed, new))})
                files.write_sealed(path, found)
                print(f"{old} → {new}, seed {seed}: {found['tunings'][-1]['rows'][:2]}", flush=True)
    write(options.out, options.page)


if __name__ == "__main__":
    main()
