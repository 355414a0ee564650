"""What protection keeps on pictures, at equal new skill: three pairs of tasks, ten methods, a frontier of each.

    python -m studies.evidence.vision --data DATA   # runs what is missing; the regime must be chosen before
    python -m studies.evidence.vision               # makes the figure and the tables of docs/evidence.md

SqueezeNet, pretrained on ImageNet, learns an old task from 300 pictures and then a new one, in the regime that
`studies.evidence.vision_regime` has chosen on other pairs. Points are files; a run that was stopped continues after
them, and one in a new clone after the committed results. A pass is one seed of all pairs and methods, and only whole
passes are reported.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from forgetless import files
from forgetless.errors import ForgetlessError
from studies.evidence import vision_page, vision_regime
from studies.evidence.vision_methods import ENDS, METHODS, model_of, wanted
from studies.evidence.vision_reading import BESIDE, NEITHER, Cell, compared
from studies.evidence.vision_scene import Scene, packed, prepare, right

#: (old task, new task), chosen by name before anything was trained: all are reported, and none of these datasets was
#: used to choose the regime. Stanford Cars is left out: 300 pictures are one or two of each of its 196 classes.
PAIRS = (("birds", "digits"), ("flowers", "groceries"), ("actions", "mnist10k"))
RUNS, OUT, PAGE = Path("runs/evidence/vision"), Path("results/evidence/vision-pairs.json"), Path("docs/evidence.md")


def run(data: Path, out: Path, seeds: Sequence[int], settings: int, log: Callable[[str], None] = print) -> None:
    """Compute every point that `out` does not hold yet, a pass after the other."""
    regime = files.read_sealed(vision_regime.OUT)
    recipe = vision_regime.recipe(regime["epochs"], regime["rate"])
    scenes = dict[Path, Scene]()
    for seed in seeds:
        for method, setting in wanted(settings):
            for pair in PAIRS:
                folder = _folder(out, pair, seed)
                path = folder / _file(method, setting)
                if path.exists():
                    continue
                if folder not in scenes:
                    scenes[folder] = prepare(data, pair, seed, folder, recipe)
                found = point(scenes[folder], folder, method, setting)
                files.write_json(path, found)
                log(f"{_name(pair)}, seed {seed}: {method}, {setting:g}: {found['old']}, {found['new']}")
        scenes.clear()


def point(scene: Scene, folder: Path, method: str, setting: float) -> dict[str, Any]:
    """A point: the accuracies, and which test pictures are right."""
    model = model_of(scene, folder, method, setting)
    both = {name: right(model, task) for name, task in (("old", scene.old), ("new", scene.new))}
    means = {name: round(float(bits.mean()), 4) for name, bits in both.items()}
    return {**means, **{f"{name} right": packed(bits) for name, bits in both.items()}}


def _file(method: str, setting: float) -> str:
    return f"{method}, {setting:g}.json"


def _name(pair: tuple[str, str]) -> str:
    return " → ".join(pair)


def _folder(out: Path, pair: tuple[str, str], seed: int) -> Path:
    return out / f"{'-'.join(pair)}-{seed}"


def collect(out: Path, seeds: Sequence[int], settings: int) -> dict[str, Any]:
    """All points of the passes that are there, and what follows from them, as one JSON-able value.

    A setting is reported where all pairs have it for the first seed, and another seed where it has all of these.

    Raises:
        ForgetlessError: not even the two ends and MAS are there for one seed.
    """
    there = {
        seed: [key for key in wanted(settings) if all(_path(out, pair, seed, key).exists() for pair in PAIRS)]
        for seed in seeds
    }
    first = there[seeds[0]]
    methods = [method for method in METHODS if any(key[0] == method for key in first)]
    if BESIDE not in methods or not {(end, 0) for end in ENDS} <= set(first):
        raise ForgetlessError(f"{out} does not hold a first pass yet; run the command with --data to finish one.")
    cells = [_cell(out, pair, seed, first) for seed in seeds if set(first) <= set(there[seed]) for pair in PAIRS]
    read = list(compared([Cell.of(each) for each in cells], [*methods, NEITHER]))
    return {"regime": files.read_sealed(vision_regime.OUT), "read": read, "cells": cells}


def _path(out: Path, pair: tuple[str, str], seed: int, key: tuple[str, float]) -> Path:
    return _folder(out, pair, seed) / _file(*key)


def restored(results: Path, out: Path) -> None:
    """Put the points of the committed results into a run directory that does not have them."""
    if not results.exists():
        return
    for cell in files.read_sealed(results)["cells"]:
        for row in cell["rows"]:
            path = out / f"{cell['pair'].replace(' → ', '-')}-{cell['seed']}" / _file(row["method"], row["setting"])
            if not path.exists():
                files.write_json(path, {key: value for key, value in row.items() if key not in {"method", "setting"}})


def _cell(out: Path, pair: tuple[str, str], seed: int, keys: Sequence[tuple[str, float]]) -> dict[str, Any]:
    rows = [{"method": key[0], "setting": key[1], **files.read_json(_path(out, pair, seed, key))} for key in keys]
    return {"pair": _name(pair), "seed": seed, "rows": rows}


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m studies.evidence.vision", description=__doc__)
    parser.add_argument("--data", type=Path, help="the folder of datasets by name; none to run nothing")
    parser.add_argument("--runs", type=Path, default=RUNS, help="the run directory; points are kept")
    parser.add_argument("--seeds", type=int, default=3, help="how many passes")
    parser.add_argument("--settings", type=int, default=4, help="how many settings of each method, 4 or 6")
    parser.add_argument("--collect", action="store_true", help="write the results of the whole passes, run nothing")
    parser.add_argument("--out", type=Path, default=OUT, help="the file of results")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page that takes the tables")
    options = parser.parse_args(words)
    seeds = range(options.seeds)
    if options.data is not None or options.collect:
        restored(options.out, options.runs)
    if options.data is not None:
        torch.set_num_threads(1)
        run(options.data, options.runs, seeds, options.settings, lambda line: print(line, flush=True))
    if options.data is not None or options.collect:
        files.write_sealed(options.out, collect(options.runs, seeds, options.settings))
    vision_page.write(options.out, options.page)


if __name__ == "__main__":
    main()
