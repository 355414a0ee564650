"""Two experts of one language model merged into one, by every method: bits per character on both domains and beside.

    python -m studies.evidence.language_base --data DATA --texts TEXTS --out WORK/small   # the small model, once
    python -m studies.merging_language --data DATA --texts TEXTS --work WORK              # runs what is missing
    python -m studies.merging                                                             # tables of docs/merging.md

The base is the small language model of `studies.evidence`; one expert learns Python, the other legal English, as that
study fine-tunes (its rate was chosen on Shakespeare). λ is chosen by the mean of both domains' bits on windows that are
neither trained on nor in the exam; the exam chooses nothing.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.lab.running.environment import environment
from forgetless.measure.estimators.fisher import fisher
from forgetless.measure.estimators.mas import mas
from forgetless.measure.importance import Importance
from studies.evidence.language import Lab
from studies.evidence.language_bench import Bench, weights
from studies.evidence.language_texts import DOMAINS, HELD_OUT, windows
from studies.merging_rows import ROWS, Experts, State, beside_the_mean, between, chosen
from studies.repair_measures import read
from studies.repair_texts import Rows

NAMES = ("code", "licenses")
SEEDS = (0, 1, 2)
OUT = Path("results/merging/language.json")
#: Windows of a domain's own text that Ω is measured on, and of each domain that λ is chosen on.
MEASURED, CHOOSING = 96, 48
MEASURES: dict[str, Callable[..., Importance]] = {"fisher": fisher, "mas": mas}
START, MEAN, GENERAL = "base", "both domains", "general"


@dataclass(frozen=True)
class Asked:
    """What a model is asked.

    Attributes:
        lab: the base, its tokenizer and general text.
        benches: the domains, with their exams.
        held_out: domain → windows that λ is chosen on.
    """

    lab: Lab
    benches: Mapping[str, Bench]
    held_out: Mapping[str, Rows]

    def exam(self, state: State) -> dict[str, float]:
        """Bits per character of each domain, of both in the mean, and of general text."""
        model = self.benches[NAMES[0]].at(state)
        own = {
            name: self.lab.bits(read(model, each.domain.held_out).loss, name, each.domain.held_out)
            for name, each in self.benches.items()
        }
        beside = [self.lab.bits(read(model, rows).loss, name, rows) for name, rows in self.lab.exam.items()]
        found = {**own, MEAN: statistics.fmean(own.values()), GENERAL: statistics.fmean(beside)}
        return {name: float(f"{bits:.6g}") for name, bits in found.items()}

    def choosing(self, state: State) -> float:
        """−(bits per character on what was held out, mean over the domains)."""
        model = self.benches[NAMES[0]].at(state)
        bits = [
            self.lab.bits(read(model, rows).loss, f"{name}, held out", rows) for name, rows in self.held_out.items()
        ]
        return -statistics.fmean(bits)


def asked(lab: Lab, seed: int) -> Asked:
    """The domains with one seed."""
    texts = {name: DOMAINS[name](lab.data, lab.texts)[-2 * HELD_OUT : -HELD_OUT] for name in NAMES}
    held_out = {name: windows(lab.tokenizer, text, CHOOSING) for name, text in texts.items()}
    return Asked(lab, {name: lab.bench(name, seed) for name in NAMES}, held_out)


def experts(given: Asked, seed: int) -> Experts:
    """The base fine-tuned on each domain, and what matters in each on text of its own, without labels."""
    omegas = dict[str, list[Importance]]()
    for bench in given.benches.values():
        model, rows = bench.at(bench.tuned()), bench.domain.train
        some = rows.ids[torch.linspace(0, len(rows) - 1, min(MEASURED, len(rows))).long(), :-1]
        for name, measure in MEASURES.items():
            found = measure(model, {"input_ids": some}, batch_size=8, progress=False)
            omegas.setdefault(name, []).append(found)
    first = next(iter(given.benches.values()))
    return Experts(weights(first.base.load()), [each.tuned() for each in given.benches.values()], omegas, seed)


def study(lab: Lab, seed: int) -> dict[str, Any]:
    """Every row of the table with one seed: the exam, and what was chosen."""
    given = asked(lab, seed)
    every = experts(given, seed)
    rows: dict[str, Any] = {START: given.exam(every.base)}
    for name, state in zip(NAMES, every.models, strict=True):
        rows[expert(name)] = given.exam(state)
    for name, row in ROWS.items():
        state, tried = chosen(every, row, given.choosing)
        rows[name] = {**given.exam(state), **tried}
        print(seed, name, rows[name], flush=True)
    return {"seed": seed, "rows": rows}


def expert(name: str) -> str:
    """The row of a domain's expert."""
    return f"expert of {name}"


def table(found: Mapping[str, Any]) -> str:
    """Markdown: bits per character, means over the seeds; and the rows beside the mean."""
    seeds = found["seeds"]
    columns = (*NAMES, MEAN, GENERAL)
    lines = [f"| bits per character | {' | '.join(columns)} | λ |", "|---" * (len(columns) + 2) + "|"]
    for row in seeds[0]["rows"]:
        runs = [each["rows"][row] for each in seeds]
        cells = [between([run[name] for run in runs], 3) for name in columns]
        lambdas = ", ".join(f"{run['λ']:g}" for run in runs if "λ" in run)
        lines.append(f"| {row} | {' | '.join(cells)} | {lambdas or '–'} |")
    less = {row: {each["seed"]: -each["rows"][row][MEAN] for each in seeds} for row in ROWS}
    unit = f"bits less than `mean`, {MEAN}"
    return "\n".join([*lines, "", *beside_the_mean(less, unit, 3)])


def main(words: Sequence[str] | None = None) -> None:
    """The command; what `--out` holds already is kept."""
    parser = argparse.ArgumentParser(prog="python -m studies.merging_language", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder of texts")
    parser.add_argument("--texts", type=Path, required=True, help="the folder of texts from packages")
    parser.add_argument("--work", type=Path, default=Path("runs/evidence"), help="the folder that holds small/")
    parser.add_argument("--out", type=Path, default=OUT, help="the file of results")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    lab = Lab(options.data, options.texts, options.work)
    try:
        found: dict[str, Any] = {"domains": list(NAMES), "seeds": []}
        if options.out.exists():
            found = files.read_sealed(options.out)
        for seed in SEEDS:
            if all(each["seed"] != seed for each in found["seeds"]):
                found["seeds"].append(study(lab, seed))
                files.write_sealed(options.out, {**found, "environment": environment()})
                print(table(found), flush=True)
    except ForgetlessError as error:
        parser.exit(2, f"forgetless: {error}\n")


if __name__ == "__main__":
    main()
