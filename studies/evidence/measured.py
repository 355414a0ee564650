"""What the measurement of Ω buys: batches, windows, other texts, other forms, on the small language model.

    python -m studies.evidence.language_base --data DATA --texts TEXTS --out WORK/small           # the model, once
    python -m studies.evidence.measured --data DATA --texts TEXTS --work WORK --measure           # every Ω, compared
    python -m studies.evidence.measured --data DATA --texts TEXTS --work WORK                     # the trainings
    python -m studies.evidence.measured_page                                                      # the page

Every Ω and every fine-tuning is a file in WORK/measured; `results/evidence/measured.json` has all of them. A stopped
run continues after its last file. Fine-tunings and exam are those of `studies.evidence.language`, seed 0.
"""

from __future__ import annotations

import argparse
import re
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from forgetless import Anchor, Importance, files
from studies.evidence.language import BATCH, OUT, RATE, STEPS, Lab
from studies.evidence.language_bench import Bench, scaled
from studies.evidence.language_methods import METHODS
from studies.evidence.language_reading import LEVEL, tunings
from studies.evidence.language_texts import DOMAINS
from studies.evidence.measured_omegas import REFERENCE, VARIANTS, Source, flat, mean
from studies.omega_sets import compared
from studies.repair_frontier import Tuning
from studies.repair_tuning import tune

#: λ of Ω ÷ its mean, as for MAS in `studies.evidence.language`.
GRID = METHODS["MAS"].strengths
#: The results of the same base, of which MAS is the reference.
KNOWN = Path("results/freezing")
#: The trainings, the most telling ones first.
TRAINED = (
    "9 windows",
    "a batch of 513",
    "the new domain",
    "E g²",
    "random tokens",
    "÷ its mean in each tensor",
    "batches of 32",
    "E‖J‖²",
    "999 windows",
    "novels alone",
    "3 windows",
    "manuals alone",
    "wikitext alone",
    "E |g|^½",
    "batches of 8",
    "batches of 128",
    "3,000 windows it was trained on",
    "255 windows it was trained on",
    "30 windows",
    "99 windows",
)


def slug(name: str) -> str:
    """A name for files."""
    for sign, word in (("‖J‖²", "jacobian"), ("²", " squared"), ("^½", " root"), ("÷", "by")):
        name = name.replace(sign, word)
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def reference(domain: str, known: Path = KNOWN) -> Tuning:
    """The fine-tuning with seed 0 of a domain in the results of the same base."""
    found = files.read_sealed(known / f"language-{domain}.json")
    return tunings({**found, "rows": [row for row in found["rows"] if row["seed"] == 0]}, "new", ("general",))[0]


def lower(kept: Sequence[float]) -> int:
    """Of settings with falling shares of the new skill, the last one before the first that keeps less than `LEVEL`."""
    return max(0, next((at for at, share in enumerate(kept) if share < LEVEL), len(kept)) - 1)


def bracket(kept: Callable[[int], float], first: int) -> None:
    """Ask for neighbors in the grid, the first one first, until one keeps `LEVEL` of the new skill and the next less.

    Args:
        kept: place in the grid → the share that is kept there.
        first: where to begin.
    """
    at = first
    while kept(at) < LEVEL and at > 0:
        at -= 1
    if at < first:
        return
    while kept(at) >= LEVEL and at + 1 < len(GRID):
        at += 1


class Study:
    """The ways to measure Ω of one base, and where they are kept."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.folder = lab, lab.work / "measured"
        self._benches: dict[str, Bench] = {}

    def bench(self, domain: str) -> Bench:
        """A domain that is learned, with seed 0."""
        if domain not in self._benches:
            self._benches[domain] = self.lab.bench(domain, 0)
        return self._benches[domain]

    def omega(self, name: str, domain: str) -> Importance:
        """Ω as it comes; it is measured once, and compared with the reference."""
        own = VARIANTS[name].own
        stem = slug(f"{name} {domain}" if own else name)
        path = self.folder / f"omega-{stem}.safetensors"
        if not path.exists():
            rows = VARIANTS[name].rows(Source(self.lab, self.bench(domain) if own else None))
            model, started = self.lab.load(), time.process_time()
            found = VARIANTS[name].measure(model, rows)
            took = time.process_time() - started
            path.parent.mkdir(parents=True, exist_ok=True)
            first = found if name == REFERENCE else self.omega(REFERENCE, domain)
            row = {
                "variant": name,
                "domain": domain if own else None,
                "windows": int(found.count),
                "seconds": float(f"{took:.3g}"),
                "scale": float(f"{mean(found) / mean(first):.4g}"),
                **{key: round(value, 4) for key, value in compared(flat(first), flat(found)).items()},
            }
            files.write_json(self.folder / f"compared-{stem}.json", row)
            found.save(path)
            print(row, flush=True)
        return Importance.load(path)

    def protecting(self, name: str, domain: str) -> Importance:
        """Ω ÷ its mean; in batches ÷ the reference's, so that λ means the same."""
        found = self.omega(name, domain)
        if VARIANTS[name].about != "batches":
            return scaled(found)
        by = mean(self.omega(REFERENCE, domain))
        return replace(found, sums={key: each / by for key, each in found.sums.items()})

    def tuned(self, name: str, domain: str, strength: float) -> Any:
        """The base, fine-tuned on the domain under that Ω."""
        bench, model = self.bench(domain), self.lab.load()
        anchor = Anchor(model, self.protecting(name, domain), strength)
        tune(model, bench.domain, bench.seed, rate=bench.rate, anchor=anchor)
        return model

    def run(self, names: Sequence[str], domains: Sequence[str], out: Path) -> None:
        """Train what is missing, all domains of one way before the next."""
        for name in names:
            for domain in domains:
                self.swept(name, domain, out)

    def swept(self, name: str, domain: str, out: Path) -> None:
        """Fine-tune at neighboring λ around `LEVEL` of the new skill, the reference's first."""
        known = reference(domain)
        first = lower([known.point(row).kept for row in known.of("MAS")])

        def kept(at: int) -> float:
            return known.point(self.point(name, domain, GRID[at], out)).kept

        bracket(kept, first)

    def point(self, name: str, domain: str, strength: float, out: Path) -> dict[str, Any]:
        """Where a fine-tuning ends; it is run once."""
        path = self.folder / f"point-{domain}-{slug(name)}-{strength:g}.json"
        if not path.exists():
            figures = self.lab.figures(self.tuned(name, domain, strength), self.bench(domain))
            short = {key: float(f"{value:.6g}") for key, value in figures.items()}
            row = {"domain": domain, "method": name, "setting": strength, "seed": 0, **short}
            files.write_json(path, row)
            print(row, flush=True)
            self.collect(out)
        found: dict[str, Any] = files.read_json(path)
        return found

    def collect(self, out: Path) -> None:
        """Put all that is there into the file of results."""
        settings = {"model": "small", "steps": STEPS, "batch": BATCH, "rate": RATE, "torch": torch.__version__}
        kinds = {"compared": "compared", "rows": "point"}
        found = {
            key: [files.read_json(path) for path in sorted(self.folder.glob(f"{kind}-*.json"))]
            for key, kind in kinds.items()
        }
        files.write_sealed(out / "measured.json", {**settings, **found})


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m studies.evidence.measured", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder of texts")
    parser.add_argument("--texts", type=Path, required=True, help="the folder of texts from packages")
    parser.add_argument("--work", type=Path, default=Path("runs/evidence"), help="the folder of the model and of Ω")
    parser.add_argument("--measure", action="store_true", help="measure and compare every Ω, and train nothing")
    parser.add_argument("--variants", nargs="+", choices=TRAINED, default=list(TRAINED), help="take no others")
    parser.add_argument("--domains", nargs="+", choices=DOMAINS, default=list(DOMAINS), help="learn no others")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--out", type=Path, default=OUT, help="the folder of results")
    options = parser.parse_args(words)
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    study = Study(Lab(options.data, options.texts, options.work))
    if options.measure:
        for name in (REFERENCE, *options.variants):
            for domain in options.domains if VARIANTS[name].own else options.domains[:1]:
                study.omega(name, domain)
        study.collect(options.out)
    else:
        study.run(options.variants, options.domains, options.out)


if __name__ == "__main__":
    main()
