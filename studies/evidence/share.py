"""How large a share of the movement does an anchor hold by default? On what is kept for development only.

    python -m studies.evidence.share --data DATA --texts TEXTS --pictures PICTURES --work WORK   # runs what is missing
    python -m studies.evidence.share   # writes the tables of docs/evidence.md

The rule, written before anything was run under it: of `SHARES`, the one with the greatest mean over all trainings on
pictures of the average of the old and the new accuracy; of shares that are within half a point of that, the largest,
which forgets least. It must keep 95 % of fine-tuning's gain in every training on text.

Pictures are the six ordered pairs of three datasets, each in a strong regime, that of the study of pictures, and in a
gentle one, that of `forgetless run sequence`. No pair of the study of pictures is among them, and one of the five
datasets of docs/results.md is. WORK is that of `studies.evidence.language`, with its base. A training is a file in
WORK; a run that was stopped continues after the last one.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from forgetless import HoldShare, files
from forgetless.errors import ForgetlessError
from forgetless.learn.methods.frozen import Frozen
from forgetless.learn.recipe import Recipe
from studies import blocks
from studies.evidence import vision_regime
from studies.evidence.language import Lab
from studies.evidence.length import FREE, TEXTS, Dial, Training, asked, gained, on_pictures, on_text, run
from studies.evidence.vision_scene import prepare, right

OUT, PAGE = Path("results/evidence/share.json"), Path("docs/evidence.md")
DATASETS, SEEDS = ("scenes", "letters", "textures"), (0, 1)
SHARES = (0.5, 0.65, 0.8, 0.9, 0.95)
#: How pictures are learned.
REGIMES = {
    "strong": vision_regime.recipe(5, 8e-3),
    "gentle": Recipe(2e-3, 10, 32, clip=5.0, schedule="cosine", freeze_batchnorm=True),
}
#: Mean accuracies this close count as the same, in points; the least of fine-tuning's gain on text, in percent.
NEAR, KEPT = 0.5, 95
FROZEN = "frozen"


def _held(share: float) -> Dial:
    return lambda steps: HoldShare(share)


#: What chooses λ, by a name.
DIALS: dict[str, Dial] = {FREE: lambda steps: None} | {f"{share:g}": _held(share) for share in SHARES}


def pictures(data: Path, work: Path) -> Iterator[tuple[Training, dict[str, Any]]]:
    """Every training on pictures, with its row under a frozen backbone."""
    for seed, (regime, recipe), pair in itertools.product(SEEDS, REGIMES.items(), itertools.permutations(DATASETS, 2)):
        name = f"{' → '.join(pair)}, {regime}, seed {seed}"
        cache = work / "share" / name.replace(" → ", "-")
        scene = prepare(data, pair, seed, cache, recipe)
        path = work / "length" / f"{name}, {FROZEN}.json"
        training = on_pictures(scene, name)
        if not path.exists():
            frozen, before = scene.trained(lambda model: Frozen()), training.before()
            old, new = (float(right(frozen, task).mean()) for task in (scene.old, scene.new))
            facts = {"before old": before[0], "before new": 0.0, "old": old, "new": new, "moved": 0.0}
            files.write_json(path, {"training": name, "kind": FROZEN, **facts})
        yield training, files.read_json(path)


def averages(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Of every kind, means over trainings on pictures, in points: what is forgotten of the old accuracy, the new
    accuracy, and the average of both at the end.
    """
    of = defaultdict[str, list[Mapping[str, Any]]](list)
    for row in rows:
        of[row["kind"]].append(row)
    return {
        kind: {
            "forgotten": 100 * fmean(row["before old"] - row["old"] for row in each),
            "new": 100 * fmean(row["new"] for row in each),
            "average": 100 * fmean((row["old"] + row["new"]) / 2 for row in each),
        }
        for kind, each in of.items()
    }


def gains(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Of every kind, in every training on text: what is won back of fine-tuning's loss, and kept of its gain, in %."""
    rows = list(rows)
    free = {row["training"]: row for row in rows if row["kind"] == FREE}
    found = defaultdict[str, list[tuple[float, float]]](list)
    for row in rows:
        found[row["kind"]].append(gained(row, free[row["training"]]))
    return found


def chosen(pictures: Iterable[Mapping[str, Any]], texts: Iterable[Mapping[str, Any]]) -> float:
    """The share that the rule takes.

    Raises:
        ForgetlessError: none keeps enough of what is learned from texts.
    """
    of, kept = averages(pictures), gains(texts)
    allowed = [share for share in SHARES if all(new >= KEPT for _, new in kept[f"{share:g}"])]
    if not allowed:
        raise ForgetlessError(f"no share keeps {KEPT} % of fine-tuning's gain on every text.")
    best = max(of[f"{share:g}"]["average"] for share in allowed)
    return max(share for share in allowed if of[f"{share:g}"]["average"] >= best - NEAR)


def table(pictures: Sequence[Mapping[str, Any]], texts: Sequence[Mapping[str, Any]]) -> str:
    """Both as Markdown, a row for every share."""
    head = ["share held", *(f"{each}: forgotten, new, average" for each in REGIMES), "all: average"]
    head += ["text: won back, %", "of the new skill kept, %"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    parts = [averages(row for row in pictures if regime in row["training"]) for regime in REGIMES]
    both, of_texts = averages(pictures), gains(texts)
    for kind in (*DIALS, FROZEN):
        cells = [" / ".join(f"{part[kind][key]:z.1f}" for key in part[kind]) for part in parts]
        cells.append(f"{both[kind]['average']:.1f}")
        cells += [", ".join(f"{each[side]:.0f}" for each in of_texts[kind]) or "–" for side in (0, 1)]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write(results: Path = OUT, page: Path = PAGE) -> None:
    """Put the table into the page."""
    found = files.read_sealed(results)
    blocks.inserted(page, "share", table(found["pictures"], found["texts"]))


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    options = asked("share", __doc__, words)
    if options.data is not None:
        lab = Lab(options.data, options.texts, options.work)
        texts = run((on_text(lab, *each) for each in TEXTS), DIALS, options.work)
        seen = list[dict[str, Any]]()
        for training, frozen in pictures(options.pictures, options.work):
            seen += [frozen, *run([training], DIALS, options.work)]
        share = chosen(seen, texts)
        files.write_sealed(OUT, {"chosen": share, "pictures": seen, "texts": texts})
        print(f"the rule takes {share:g}")
    write()


if __name__ == "__main__":
    main()
