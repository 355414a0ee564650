"""MANGO on small streams, with the controls that its paper lacks, beside what else learns a stream with a small buffer.

    python -m studies.mango --data DATASETS    # runs what is missing, and writes the tables of docs/online.md
    python -m studies.mango                    # writes the tables only

DATASETS is the root of the image datasets; `forgetless data where mnist10k` says how to get what is needed. Every
method has a learning rate of its own, and `er-mas` and `mas-gated` a λ or κ, found on a held-out fifth of the training
pictures of the first two tasks, with two seeds that are not reported and a buffer of 100. Runs are kept one at a time,
so that the study can be stopped and started again.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import forgetless
from forgetless import files
from forgetless.lab.experiments.online import OnlineStream
from forgetless.lab.results.paired import Paired, paired
from forgetless.lab.running.experiment import Experiment
from forgetless.learn import metrics
from studies import blocks

OUT = Path("results/online")
PAGE = Path("docs/online.md")
RATES = (0.01, 0.02, 0.04, 0.08)
SHARED = 0.02  # the paper has one rate for all, this one on CIFAR-100
STRENGTHS = (0.1, 1.0, 10.0)  # of er-mas: λ, of mas-gated: κ

_GATED = {"meta_batch": 128}
_GATE_ONLY = {**_GATED, "penalized": False, "meta": False}


@dataclass(frozen=True)
class Variant:
    """A method with settings.

    Attributes:
        title: in tables.
        method: its name.
        settings: its settings.
        searched: the setting that is searched beside the rate.
        of: whose rate it has; None for one of its own. An ablation has the rate of the whole method, and so has the
            control, which at a rate of its own would be ER.
        shared: whether it also runs at the rate that all share.
    """

    title: str
    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    searched: str | None = None
    of: str | None = None
    shared: bool = False


VARIANTS = {
    "finetune": Variant("fine-tuning", "finetune"),
    "er": Variant("ER", "er", shared=True),
    "er-half": Variant("ER, every gradient × ½", "er-half", of="mango", shared=True),
    "gate": Variant(
        "MANGO, gate only", "mango", {**_GATED, "penalized": False, "meta": False}, of="mango", shared=True
    ),
    "fixed": Variant("MANGO, λ fixed", "mango", {**_GATED, "meta": False}, of="mango", shared=True),
    "mango": Variant("MANGO as printed", "mango", _GATED, shared=True),
    "fast": Variant("MANGO, λ 50 times as fast", "mango", {**_GATED, "meta_lr": 0.1}, of="mango"),
    "gate-abs": Variant(
        "MANGO with \\|θ\\|, gate only",
        "mango",
        {**_GATE_ONLY, "gate": "magnitude"},
        of="mango-abs",
        shared=True,
    ),
    "mango-abs": Variant("MANGO with \\|θ\\|", "mango", {**_GATED, "gate": "magnitude"}, shared=True),
    "mas-gated": Variant("MAS-gated (ours)", "mas-gated", _GATED, searched="kappa"),
    "er-ace": Variant("ER-ACE", "er-ace"),
    "der++": Variant("DER++", "der++"),
    "a-gem": Variant("A-GEM", "a-gem"),
    "mir": Variant("MIR", "mir"),
    "gdumb": Variant("GDumb", "gdumb"),
    "er-mas": Variant("ER and MAS", "er-mas", searched="strength"),
}
FEW = ("er", "er-half", "mango", "er-ace", "mas-gated")
LATE = ("fast", "gdumb", "a-gem", "mir")
OTHERS = ("finetune", "der++", "mir", "gdumb", "er-mas")
MAIN = tuple(name for name in VARIANTS if name not in LATE)
LEAST = 3  # seeds of a row


@dataclass(frozen=True)
class Block:
    """A stream and a buffer.

    Attributes:
        title: in tables.
        stream: of the experiment `online`.
        buffer: samples.
        ablated: whether methods also run at the rate that all share.
        tuned: the buffer with which rates are found.
    """

    title: str
    stream: str
    buffer: int
    ablated: bool = False
    tuned: int = 100


DIGITS = Block("digits, 5 × 2, buffer 100", "mnist10k", 100, ablated=True)
SMALL = Block("digits, 5 × 2, buffer 30", "mnist10k", 30)
LARGE = Block("digits, 5 × 2, buffer 300", "mnist10k", 300)
LETTERS = Block("letters, 13 × 2, buffer 100", "letters", 100)
GROCERIES = Block("groceries, 10 × 8, buffer 100", "groceries", 100)
BLOCKS = (DIGITS, SMALL, LARGE, LETTERS, GROCERIES)
#: What is run in this order: a block, the variants and how many seeds.
STEPS = (
    (DIGITS, MAIN, 5),
    (SMALL, FEW, LEAST),
    (LARGE, FEW, LEAST),
    (DIGITS, LATE, 5),
    (SMALL, FEW, 5),
    (LARGE, FEW, 5),
    (LETTERS, FEW, 5),
    (GROCERIES, FEW, 5),
    (SMALL, OTHERS, 5),
    (LARGE, OTHERS, 5),
    (LETTERS, OTHERS, 5),
    (GROCERIES, OTHERS, 5),
)


def experiment(data: Path, stream: str, buffer: int, cache: Path) -> Experiment:
    """The stream with its budget: 300 pictures of a task, batches of 16 and 32 from the buffer, three glances."""
    settings = OnlineStream(
        data=data,
        stream=stream,
        limit=300,
        network="three-layers",
        buffer=buffer,
        batch_size=16,
        replay=32,
        look=10,
        lr=SHARED,
        cache=cache,
    )
    built = settings.build()
    assert built.online is not None
    return built


def tuned(built: Experiment, block: Block, name: str) -> tuple[float, dict[str, Any]]:
    """The rate, and the settings with what is searched beside it."""
    variant = VARIANTS[name]
    if variant.of is not None:
        return tuned(built, block, variant.of)[0], variant.settings
    path = OUT / f"rates-{block.stream}.json"
    found: dict[str, Any] = files.read_sealed(path)["found"] if path.exists() else {}
    if name not in found:
        assert built.online is not None
        scores: dict[str, tuple[float, float, float | None]] = {}
        for value in STRENGTHS if variant.searched else (None,):
            settings = {**variant.settings, **({} if variant.searched is None else {variant.searched: value})}
            scores |= {
                f"{rate:g}" + ("" if value is None else f", {variant.searched} {value:g}"): (
                    built.online.score(variant.method, settings, built.network, built.tasks, rate),
                    rate,
                    value,
                )
                for rate in RATES
            }
        best = max(scores.values())[0]
        _, rate, value = next(each for each in scores.values() if each[0] == best)
        found[name] = {"scores": {key: each[0] for key, each in scores.items()}, "rate": rate, "value": value}
        files.write_sealed(path, {"buffer": block.tuned, "found": found})
    kept = found[name]
    own = {} if variant.searched is None else {variant.searched: kept["value"]}
    return kept["rate"], {**variant.settings, **own}


def runs(block: Block, root: Path | None = None) -> list[dict[str, Any]]:
    """What is kept of a block."""
    path = _file(block, root)
    found: list[dict[str, Any]] = files.read_sealed(path)["found"] if path.exists() else []
    return found


def _file(block: Block, root: Path | None) -> Path:
    return (root or OUT) / f"{block.stream}-{block.buffer}.json"


def missing(
    block: Block, names: tuple[str, ...], seeds: int, built: Mapping[int, Experiment]
) -> Iterator[tuple[str, float, dict[str, Any], int]]:
    """Variant, rate, settings and seed of the runs that are still to be done, seed by seed."""
    done = {(run["variant"], run["online"]["lr"], run["seed"]) for run in runs(block)}
    for seed in range(seeds):
        for name in names:
            rate, settings = tuned(built[block.tuned], block, name)
            both = {rate, SHARED} if block.ablated and VARIANTS[name].shared else {rate}
            for each in sorted(both):
                if (name, each, seed) not in done:
                    yield name, each, settings, seed


def learn(data: Path, cache: Path, until: float) -> None:
    """Run what is missing, until a time of day."""
    torch.set_num_threads(1)
    for block, names, seeds in STEPS:
        built = {size: experiment(data, block.stream, size, cache) for size in {block.buffer, block.tuned}}
        for name, rate, settings, seed in missing(block, names, seeds, built):
            if time.monotonic() > until:
                return
            one = built[block.buffer]
            assert one.online is not None
            method = VARIANTS[name].method
            found = one.online.learn(one.online.create(method, **settings), one.network(seed), one.tasks, rate, seed)
            entry = {"variant": name, "method": method, "settings": settings, "seed": seed, **found}
            kept = {"forgetless": forgetless.__version__, "torch": torch.__version__, "options": one.config["options"]}
            files.write_sealed(_file(block, None), {**kept, "found": [*runs(block), entry]})
            score = 100 * metrics.average_accuracy(found["accuracy"])
            print(f"{block.title}: {name} at {rate:g}, seed {seed}: {score:.1f} %", flush=True)


def _figures(run: Mapping[str, Any]) -> tuple[float, ...]:
    """Accuracy at the end, AAA, WC-Acc and BWT, in percent."""
    online = run["online"]
    found = (
        metrics.average_accuracy(run["accuracy"]),
        online["average_anytime_accuracy"],
        online["worst_case_accuracy"],
        metrics.backward_transfer(run["accuracy"]),
    )
    return tuple(100 * each for each in found)


def _interval(found: Paired) -> str:
    """The mean and the interval; adding 0.0 turns a rounded -0.0 into 0.0."""
    mean, low, high = (round(each, 1) + 0.0 for each in (found.mean, found.low, found.high))
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"


def _rows(found: list[dict[str, Any]], rates: Mapping[str, float]) -> Iterator[str]:
    """A row for each variant with all its seeds, with its difference from ER of the same seed."""

    def of(name: str) -> dict[int, dict[str, Any]]:
        rate = rates.get(name)
        return {run["seed"]: run for run in found if run["variant"] == name and run["online"]["lr"] == rate}

    base = {seed: _figures(run)[0] for seed, run in of("er").items()}
    for name in rates:
        mine = of(name)
        if len(mine) < LEAST:
            continue
        columns = list(zip(*map(_figures, mine.values()), strict=True))
        cells = [f"{statistics.fmean(each):.1f} ± {statistics.stdev(each):.1f}" for each in columns]
        against = "–"
        if name != "er" and len(mine.keys() & base.keys()) >= LEAST:
            compared = paired({seed: _figures(run)[0] for seed, run in mine.items()}, base)
            against = _interval(compared)
        passes = [run["online"]["passes"] for run in mine.values()]
        forward, backward = (statistics.fmean(each[key] for each in passes) / 1000 for key in ("forward", "backward"))
        setting = VARIANTS[name].searched
        value = (
            ""
            if setting is None
            else f", {'κ' if setting == 'kappa' else 'λ'} {next(iter(mine.values()))['settings'][setting]:g}"
        )
        yield (
            f"| {VARIANTS[name].title} | {rates[name]:g}{value} | {' | '.join(cells)} | {against} | "
            f"{forward:.1f} / {backward:.1f} | {len(mine)} |"
        )


def table(block: Block, *, shared: bool = False, root: Path | None = None) -> str:
    """A block's table, each method at its own rate or those that have it at the shared one."""
    rates = _rates(block, shared, root)
    lines = [
        "| method | rate | accuracy at the end | AAA | WC-Acc | BWT | accuracy − ER's, 95 % | forward / backward, "
        "1,000 samples | seeds |",
        "|---|---|---|---|---|---|---|---|---|",
        *_rows(runs(block, root), rates),
    ]
    return "\n".join(lines) if len(lines) > 2 else ""


#: What is compared by pairs of the same seed, at the rates of a table: how much of a gain is a smaller rate's, and
#: the method that the page recommends with every rival but ER, from which each row has its difference.
PAIRS = (
    ("mango", "er-half"),
    ("gate", "er-half"),
    ("mango", "fixed"),
    ("mango", "mango-abs"),
    ("mas-gated", "mango"),
    ("mas-gated", "er-mas"),
    ("er-ace", "er-half"),
    ("er-ace", "mango"),
    ("er-ace", "mas-gated"),
    ("er-ace", "der++"),
    ("er-ace", "mir"),
    ("er-ace", "gdumb"),
    ("er-ace", "er-mas"),
)


def pairs(block: Block, *, shared: bool = False, root: Path | None = None) -> str:
    """The paired differences of accuracy between methods of `PAIRS` that have as many seeds as a row needs."""
    rates = _rates(block, shared, root)
    found: dict[str, dict[int, float]] = {}
    for run in runs(block, root):
        if run["online"]["lr"] == rates.get(run["variant"]):
            found.setdefault(run["variant"], {})[run["seed"]] = _figures(run)[0]
    lines = []
    for one, other in PAIRS:
        both = found.get(one, {}).keys() & found.get(other, {}).keys()
        if len(both) >= LEAST:
            compared = paired(found[one], found[other])
            lines.append(
                f"| {VARIANTS[one].title} − {VARIANTS[other].title} | {rates[one]:g}, {rates[other]:g} | "
                f"{_interval(compared)} | {compared.count} |"
            )
    head = ["| difference of accuracy, 95 % | rates | points | seeds |", "|---|---|---|---|"]
    return "\n".join([*head, *lines]) if lines else ""


def gates(block: Block, root: Path | None = None) -> str:
    """What MANGO's gates and λ came to at the end of the stream, by group, on average over the seeds."""
    found = [run["online"] for run in runs(block, root) if run["variant"] == "mango"]
    if not found:
        return ""
    parts = []
    for number, group in enumerate(found[0]["groups"]):
        counts = [sum(column) for column in zip(*(each["gates"][-1][number] for each in found), strict=True)]
        mean = sum((place + 0.5) / len(counts) * count for place, count in enumerate(counts)) / sum(counts)
        last = statistics.fmean(each["lambdas"][-1][1 + number] for each in found)
        parts.append(f"{group}: gate {mean:.2f}, λ {last:.2e}")
    return f"MANGO at the end, mean over weights and seeds: {'; '.join(parts)}. λ began at {math.exp(-7.6):.2e}."


def _rates(block: Block, shared: bool, root: Path | None) -> dict[str, float]:
    """The rate of every variant in a table of the block."""
    path = (root or OUT) / f"rates-{block.stream}.json"
    found: dict[str, Any] = files.read_sealed(path)["found"] if path.exists() else {}
    names = tuple(name for name in VARIANTS if not shared or VARIANTS[name].shared)
    owners = {name: VARIANTS[name].of or name for name in names}
    return {name: SHARED if shared else found[owner]["rate"] for name, owner in owners.items() if owner in found}


def tables(root: Path | None = None) -> str:
    """All tables, as Markdown."""
    parts: list[str] = []
    for block in BLOCKS:
        if own := table(block, root=root):
            parts += [f"**{block.title}, each at its own rate**", own, pairs(block, root=root), gates(block, root)]
        if block.ablated and (same := table(block, shared=True, root=root)):
            parts += [f"**{block.title}, all at the rate {SHARED:g}**", same, pairs(block, shared=True, root=root)]
    return "\n\n".join(filter(None, parts))


def main() -> None:
    """See the top of this file."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--data", type=Path, help="the root of the datasets; without it only the page is written")
    words.add_argument("--cache", type=Path, default=Path("runs/decoded"), help="a folder for decoded pictures")
    words.add_argument("--minutes", type=float, default=1e9, help="begin no run after so many minutes")
    given = words.parse_args()
    if given.data is not None:
        learn(given.data, given.cache, time.monotonic() + 60 * given.minutes)
    blocks.inserted(PAGE, "online", tables())


if __name__ == "__main__":
    main()
