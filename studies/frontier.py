"""Frontier curves: what protecting an old task costs a new one, over the strength λ, for several kinds of protection.

    python -m studies.frontier --data DATA   # runs what is missing in runs/frontier, and writes results/
    python -m studies.frontier               # makes the figures and the tables of docs/strength.md from results/

A network pretrained on ImageNet learns an old task; then, once for every kind of protection and λ, it learns a new one
from there. Each such run is a *point*: the accuracy on both tasks, and how far the weights moved, which needs no data
of the old task. Points are files; a run that was stopped continues after them. Test samples decide nothing.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from forgetless import Anchor, DriftBudget, Importance, KeepAgreement, files
from forgetless.errors import ForgetlessError
from forgetless.lab.experiments.parts import images
from forgetless.lab.networks.pretrained import pretrained
from forgetless.lab.running.search import search_split
from forgetless.learn.classification import classes_of
from forgetless.learn.evaluation import evaluate
from forgetless.learn.heads import MultiHead
from forgetless.learn.method import Method
from forgetless.learn.methods.frozen import Frozen
from forgetless.learn.recipe import Recipe
from forgetless.learn.seeding import derive
from forgetless.learn.task import Task
from forgetless.learn.train import learn
from forgetless.measure.estimators.fisher import fisher
from forgetless.measure.estimators.mas import mas
from forgetless.measure.normalized import mean_squared_norm
from forgetless.model.parameters import fingerprints, trainable
from forgetless.protect.strength.stability_decay import stability_decay
from studies import blocks, figures
from studies.given_anchor import GivenAnchor

#: (old task, new task); every set is the old one once and the new one once.
PAIRS = (("scenes", "letters"), ("letters", "actions"), ("actions", "scenes"))
#: So that fine-tuning forgets and all points take about half an hour on one core. The rate was chosen after two
#: fine-tuning runs at 2e-3 and 6e-3 that forgot little on the old task's test pictures; no strength was.
RECIPE = Recipe(8e-3, 10, 16, clip=5.0, schedule="cosine", freeze_batchnorm=True)
OUT = Path("results/frontier/three-pairs.json")
SIZE, LIMIT, TESTED, PROBES, MEASURED, BATCH = 64, 300, 450, 200, 300, 50


@dataclass(frozen=True)
class Curve:
    """One kind of protection, at every strength of a grid.

    Attributes:
        omega: which Ω (`OMEGAS`).
        how: "pull" or "gradient".
        strengths: the λ of its points.
    """

    omega: str
    how: str
    strengths: tuple[float, ...]


_MAS = (1e-3, 1e-2, 1e-1, 1.0)
CURVES = {
    "MAS exact, pull": Curve("exact", "pull", (*_MAS, 10.0)),
    "MAS per batch, pull": Curve("batch", "pull", (1e-2, 1e-1, 1.0)),
    "EWC, pull": Curve("fisher", "pull", (10.0, 1e2, 1e3, 1e4)),
    "L2-SP, pull": Curve("ones", "pull", _MAS),
    "MAS exact, gradient": Curve("exact", "gradient", _MAS),
}


@dataclass(frozen=True)
class Scene:
    """Where the points of a pair start: a network that has learned the old task.

    Attributes:
        old: the task to be remembered.
        new: the task to be learned.
        model: the network; points learn on copies of it.
        omegas: every Ω of it by name.
        before: its accuracy on the old task.
    """

    old: Task
    new: Task
    model: MultiHead
    omegas: Mapping[str, Importance]
    before: float


def prepare(
    data: Path,
    old: str,
    new: str,
    seed: int,
    cache: Path,
    recipe: Recipe = RECIPE,
    network: str = "squeezenet",
    kinds: Collection[str] | None = None,
) -> Scene:
    """Learn the old task and measure Ω, of all `OMEGAS` or of those named; what `cache` holds of that is read."""
    loaded = (images.load(data / name, size=SIZE, limit=LIMIT) for name in (old, new))
    first, second = (images.with_tests(task, TESTED) for task in loaded)
    model = pretrained(network)
    path = cache / "old.safetensors"
    if path.exists():
        tensors, header = files.read_tensors(path, "scene")
        model.grow(old, len(classes_of(first)))
        model.load_state_dict(tensors)
        before = float(header["before"])
    else:
        before = _rate(learn(model, [first], GivenAnchor(Anchor(model, None, 1.0)), recipe, seed=seed).accuracy[0][0])
        files.write_tensors(path, model.state_dict(), "scene", {"before": before})
    omegas = {}
    for name, measure in ((name, OMEGAS[name]) for name in kinds or OMEGAS):
        folder = cache / f"omega-{name}"
        if not folder.exists():
            measure(model, first).save(folder)
        omegas[name] = Importance.load(folder)
    return Scene(first, second, model, omegas, before)


def exact(model: MultiHead, task: Task) -> Importance:
    """Eq. 2: the modulus of every sample's gradient."""
    return mas(model, task.train[0][:MEASURED], forward=_through(task), exclude="heads", progress=False)


def per_batch(model: MultiHead, task: Task) -> Importance:
    """What public codes compute: the modulus of a batch's summed gradient; eval mode, as the authors' code does."""
    named = trainable(model, exclude="heads")
    sums = {name: torch.zeros_like(weights) for name, weights in named.items()}
    model.eval()
    inputs = task.train[0][:MEASURED]
    for batch in torch.split(inputs, BATCH):
        norms = model(batch, task.name).square().sum()
        for total, slope in zip(sums.values(), torch.autograd.grad(norms, list(named.values())), strict=True):
            total += slope.abs()
    return Importance(sums, len(inputs), "mas per batch", fingerprints(named))


def ewc(model: MultiHead, task: Task) -> Importance:
    """The expected Fisher information's diagonal by one drawn label a sample; λ here is EWC's λ/2."""
    return fisher(model, task.train[0][:MEASURED], forward=_through(task), exclude="heads", progress=False)


def ones(model: MultiHead, task: Task) -> Importance:
    """Ω = 1: every weight alike."""
    named = trainable(model, exclude="heads")
    return Importance({name: torch.ones_like(p) for name, p in named.items()}, 1, "ones", fingerprints(named))


OMEGAS: dict[str, Callable[[MultiHead, Task], Importance]] = {
    "exact": exact,
    "batch": per_batch,
    "fisher": ewc,
    "ones": ones,
}


def points(
    scene: Scene, seed: int, cache: Path, recipe: Recipe = RECIPE
) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """The points of a pair: (a name, what computes it)."""

    def held(curve: str, strength: float) -> Callable[[], dict[str, Any]]:
        kind = CURVES[curve]

        def run() -> dict[str, Any]:
            model = copy.deepcopy(scene.model)
            anchor = Anchor(model, scene.omegas[kind.omega], strength)
            return {
                "curve": curve,
                "strength": strength,
                **trained(scene, model, GivenAnchor(anchor, kind.how), seed, recipe),
            }

        return run

    def bare(curve: str) -> Callable[[], dict[str, Any]]:
        def run() -> dict[str, Any]:
            model = copy.deepcopy(scene.model)
            method = Frozen() if curve == "frozen backbone" else GivenAnchor(Anchor(model, None, 1.0))
            return {"curve": curve, "strength": None, **trained(scene, model, method, seed, recipe)}

        return run

    def searched() -> dict[str, Any]:
        split = search_split(scene.new, derive(seed, "split"))

        def train(rate: float, strength: float) -> float:
            model = copy.deepcopy(scene.model)
            method = GivenAnchor(Anchor(model, scene.omegas["exact"], strength))
            outcome = learn(model, [split], method, dataclasses.replace(recipe, lr=rate), seed=seed)
            return _rate(outcome.accuracy[0][0])

        found = stability_decay(train, float, [recipe.lr], path=cache / "stability decay" / "trials.json")
        model = copy.deepcopy(scene.model)
        method = GivenAnchor(Anchor(model, scene.omegas["exact"], found))
        trials = [dataclasses.asdict(each) for each in found.trials]
        about = {"curve": "stability decay", "strength": float(found), "trials": trials}
        return {**about, **trained(scene, model, method, seed, recipe)}

    def dialled(curve: str, dial: KeepAgreement | DriftBudget) -> Callable[[], dict[str, Any]]:
        def run() -> dict[str, Any]:
            model = copy.deepcopy(scene.model)
            anchor = Anchor(model, scene.omegas["exact"], dial)
            found = trained(scene, model, GivenAnchor(anchor), seed, recipe, dial.settle)
            history = [dataclasses.asdict(each) for each in dial.history]
            return {"curve": curve, "strength": anchor.strength, "history": history, **found}

        return run

    pictures = scene.old.train[0][:PROBES]
    size = mean_squared_norm(scene.model, pictures, forward=_through(scene.old))
    yield "fine-tuning", bare("fine-tuning")
    yield "frozen backbone", bare("frozen backbone")
    for curve, kind in CURVES.items():
        for strength in kind.strengths:
            yield f"{curve}, {strength:g}", held(curve, strength)
    yield "KeepAgreement", dialled("KeepAgreement(0.95)", KeepAgreement(0.95, pictures, forward=_through(scene.old)))
    yield "DriftBudget", dialled("DriftBudget(mean ‖F‖²)", DriftBudget(size))
    yield "stability decay", searched


def trained(
    scene: Scene,
    model: MultiHead,
    method: Method,
    seed: int,
    recipe: Recipe,
    settle: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Learn the new task; the accuracies, or how it failed. `settle` is called before the tasks are tested."""
    try:
        learn(model, [scene.new], method, recipe, seed=seed)
    except ForgetlessError as error:
        return {"diverged": str(error)}
    settle()
    with torch.no_grad():
        old, new = (evaluate(model, task, BATCH) for task in (scene.old, scene.new))
    return {"old": old, "new": new, "before": scene.before, **moved(scene, model)}


def moved(scene: Scene, model: MultiHead) -> dict[str, float]:
    """How far the network went from the old one: known without data, and from unlabeled pictures of the old task."""
    first, last = (trainable(each, exclude="heads") for each in (scene.model, _thawed(model)))
    omega = scene.omegas["exact"].mean()
    with torch.no_grad():
        steps = {name: (last[name] - first[name]).double() for name in omega}
        found = {
            "bound": sum(float((omega[name] * steps[name].abs()).sum()) for name in omega),
            "drift": sum(float((omega[name] * steps[name].square()).sum()) for name in omega),
            "distance": math.sqrt(sum(float(each.square().sum()) for each in steps.values())),
        }
        pictures = scene.old.train[0][:PROBES]
        was, now = (_logits(each, pictures, scene.old.name) for each in (scene.model, model))
    gap = (was.log_softmax(1).exp() * (was.log_softmax(1) - now.log_softmax(1))).sum(1)
    return {**found, "agreement": float((was.argmax(1) == now.argmax(1)).double().mean()), "kl": float(gap.mean())}


def _thawed(model: MultiHead) -> MultiHead:
    model.freeze(False)
    return model


def _logits(model: nn.Module, pictures: Tensor, task: str) -> Tensor:
    model.eval()
    return torch.cat([model(batch, task) for batch in torch.split(pictures, BATCH)]).double()


def _through(task: Task) -> Callable[[nn.Module, Any], Tensor]:
    def forward(network: nn.Module, inputs: Any) -> Tensor:
        logits: Tensor = network(inputs, task.name)
        return logits

    return forward


def _rate(value: float | None) -> float:
    assert value is not None
    return value


def run(
    data: Path,
    out: Path,
    seed: int = 0,
    pairs: Sequence[tuple[str, str]] = PAIRS,
    log: Callable[[str], None] = print,
) -> None:
    """Compute every point that `out` does not hold yet."""
    for old, new in pairs:
        folder = out / f"{old}-{new}"
        scene = prepare(data, old, new, derive(seed, old), folder)
        for name, compute in points(scene, derive(seed, new), folder):
            path = folder / f"{name}.json"
            if not path.exists():
                found = compute()
                files.write_json(path, found)
                log(f"{old} → {new}: {name}: {_brief(found)}")


def _brief(found: Mapping[str, Any]) -> str:
    return "diverged" if "diverged" in found else f"old {found['old']:.3f}, new {found['new']:.3f}"


def collect(out: Path) -> dict[str, Any]:
    """All points of a run directory, with the settings, as one JSON-able value."""
    pairs = [(folder, f"{old} → {new}") for old, new in PAIRS if (folder := out / f"{old}-{new}").is_dir()]
    found = {pair: [files.read_json(path) for path in sorted(folder.glob("*.json"))] for folder, pair in pairs}
    settings = {
        "size": SIZE,
        "limit": LIMIT,
        "tested": TESTED,
        "measured": MEASURED,
        "batch": BATCH,
        **dataclasses.asdict(RECIPE),
    }
    return {"settings": settings, "points": found}


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m studies.frontier", description=__doc__)
    parser.add_argument("--data", type=Path, help="a folder with the image datasets by name; none to run nothing")
    parser.add_argument("--runs", type=Path, default=Path("runs/frontier"), help="the run directory; points are kept")
    parser.add_argument("--out", type=Path, default=OUT, help="the file of results")
    parser.add_argument("--page", type=Path, default=Path("docs/strength.md"), help="the page that takes the tables")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pair", type=int, action="append", help="only that one of the pairs, 1, 2 or 3; repeatable")
    options = parser.parse_args(words)
    pairs = PAIRS if options.pair is None else [PAIRS[number - 1] for number in options.pair]
    if options.data is not None:
        run(options.data, options.runs, options.seed, pairs)
        files.write_sealed(options.out, collect(options.runs))
    drawn(files.read_sealed(options.out)["points"], options.page)


def drawn(points: figures.Points, page: Path) -> None:
    """Draw the figures beside a page, and put the tables into it."""
    figures.frontier(points, page.parent / "figures" / "strength-frontier.svg")
    figures.prediction(points, page.parent / "figures" / "strength-prediction.svg")
    blocks.inserted(page, "frontier", figures.table(points))
    lines = [f"| rank correlation with forgetting | {' | '.join(points)} | all |", "|---" * (len(points) + 2) + "|"]
    for key, name in figures.PREDICTORS.items():
        cells = [*figures.correlations(points, key).values(), figures.overall(points, key)]
        lines.append(f"| {name.replace('|', chr(92) + '|')} | {' | '.join(f'{cell:.2f}' for cell in cells)} |")
    blocks.inserted(page, "prediction", "\n".join(lines))


if __name__ == "__main__":
    main()
