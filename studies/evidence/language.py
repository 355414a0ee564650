"""What fine-tuning a language model costs of what it knew, and what each kind of protection keeps for what it costs.

    python -m studies.evidence.language_base --data DATA --texts TEXTS --out WORK/small      # the small model, once
    python -m studies.evidence.language --data DATA --texts TEXTS --work WORK   # runs what is missing
    python -m studies.evidence.language_page   # writes the page

Every point is a file in WORK; `results/evidence` has a file a domain with all its seeds, written after every point. A
stopped run continues after its last point, and one in a new clone after the committed results, if its base is theirs.
A base that was trained on another machine need not be; it is refused then.
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.learn.seeding import derive, permutation
from studies.evidence.language_bench import Base, Bench
from studies.evidence.language_methods import METHODS
from studies.evidence.language_texts import DOMAINS, asked, domain, general, learned, measured, windows
from studies.repair_measures import read
from studies.repair_texts import Rows

OUT = Path("results/evidence")
STEPS, BATCH, MEASURED, ASKED, REPLAYED = 60, 8, 256, 48, 0.01
#: The peaks of the learning rates, for all weights and for LoRA: those of `RATES` at which plain fine-tuning, and plain
#: LoRA, learned the domain of development best.
RATES = (3e-4, 1e-3, 3e-3)
RATE, LORA = 1e-3, 3e-3
#: Bits per character by which the figures of one base may differ from machine to machine.
SAME = 1e-3


@dataclass(frozen=True)
class Lab:
    """The folders, the small model and what it is asked."""

    data: Path
    texts: Path
    work: Path
    chosen: dict[str, Tensor] = field(default_factory=dict)
    characters: dict[str, int] = field(default_factory=dict)

    @cached_property
    def tokenizer(self) -> Any:
        """The base's tokenizer."""
        import transformers

        return transformers.AutoTokenizer.from_pretrained(self.work / "small")

    def load(self) -> Any:
        """The base."""
        import transformers

        load: Any = transformers.AutoModelForCausalLM.from_pretrained
        return load(self.work / "small", dtype=torch.float32, attn_implementation="eager").eval()

    @cached_property
    def base(self) -> Base:
        """The base with windows of old text, as many of each source."""
        parts = general(self.data, self.texts)
        old = [windows(self.tokenizer, measured(text), MEASURED // len(parts)) for text in parts.values()]
        seen = _joined([windows(self.tokenizer, learned(text)) for text in parts.values()])
        few = permutation(len(seen), derive(0, "replayed"))[: round(REPLAYED * len(seen))]
        return Base(self.load, _joined(old), seen.taken(few), self.work)

    @cached_property
    def exam(self) -> dict[str, Rows]:
        """Windows of general text by source."""
        parts = general(self.data, self.texts)
        return {name: windows(self.tokenizer, asked(text), ASKED) for name, text in parts.items()}

    def bench(self, name: str, seed: int, *, rate: float = RATE, lora: float = LORA) -> Bench:
        """A domain that is learned from the base."""
        found = domain(name, self.tokenizer, self.data, self.texts, batch=BATCH, steps=STEPS, count=2 * ASKED)
        return Bench(self.base, found, derive(seed, name), rate, lora)

    def figures(self, model: Any, bench: Bench) -> dict[str, float]:
        """Bits per character of general and of the domain's text, and how often first choices agree with the base's."""
        found, agreed, places = {}, 0, 0
        for name, rows in self.exam.items():
            now = read(model, rows)
            if name not in self.chosen:
                self.chosen[name] = read(self.load(), rows).choices
            agreed, places = agreed + int((now.choices == self.chosen[name]).sum()), places + len(now.choices)
            found[name] = self.bits(now.loss, name, rows)
        new = self.bits(read(model, bench.domain.held_out).loss, bench.domain.name, bench.domain.held_out)
        return {"general": sum(found.values()) / len(found), **found, "agreement": agreed / places, "new": new}

    def bits(self, loss: float, name: str, rows: Rows) -> float:
        """Nats a token as bits per character."""
        if name not in self.characters:
            self.characters[name] = sum(len(self.tokenizer.decode(row[1:])) for row in rows.ids)
        return loss * rows.ids[:, 1:].numel() / self.characters[name] / math.log(2)


def rates(lab: Lab) -> None:
    """Print what plain fine-tuning, LoRA and OSF learn of the domain of development at each rate."""
    for rate in RATES:
        bench = lab.bench(next(iter(DOMAINS)), 0, rate=rate, lora=rate)
        for method, strength in (("fine-tuned", 0), ("LoRA", 1), ("OSF", 0.5)):
            print(method, rate, lab.figures(METHODS[method].run(bench, strength), bench), flush=True)


def _joined(parts: Sequence[Rows]) -> Rows:
    return Rows(torch.cat([part.ids for part in parts]), torch.cat([part.labels for part in parts]))


def run(lab: Lab, domains: Sequence[str], seeds: Sequence[int], methods: Sequence[str], out: Path) -> None:
    """Run what is missing, all of one seed before the next; what is there already is kept."""
    for seed in seeds:
        for name in domains:
            bench: Bench | None = None
            for method in methods:
                for strength in METHODS[method].strengths:
                    path = _point(lab.work, name, seed, method, strength)
                    if path.exists():
                        continue
                    bench = bench or _checked(lab, lab.bench(name, seed))
                    model = METHODS[method].run(bench, strength)
                    figures = {key: float(f"{value:.6g}") for key, value in lab.figures(model, bench).items()}
                    files.write_json(path, {"method": method, "setting": strength, "seed": seed, **figures})
                    print(name, seed, method, strength, figures, flush=True)
                    collect(lab.work, name, out)


def _checked(lab: Lab, bench: Bench) -> Bench:
    """The same, where its base is the one that the points are of: trained on another machine, it is another one."""
    known = [row for row in _rows(lab.work, bench.domain.name) if row["method"] == "base"]
    now = lab.figures(lab.load(), bench) if known else {}
    for row in known:
        if abs(row["general"] - now["general"]) > SAME or abs(row["new"] - now["new"]) > SAME:
            raise ForgetlessError(
                f"the base in {lab.work} has {now['general']:.4f} bits per character of general text, and the base of "
                f"the results {row['general']:.4f}: they cannot be mixed. Give another --work, and another --out."
            )
    return bench


def restored(out: Path, work: Path) -> None:
    """Put the points of the committed results into a folder that does not have them."""
    for name in DOMAINS:
        path = out / f"language-{name}.json"
        for row in files.read_sealed(path)["rows"] if path.exists() else ():
            point = _point(work, name, row["seed"], row["method"], row["setting"])
            if not point.exists():
                files.write_json(point, row)


def _point(work: Path, name: str, seed: int, method: str, strength: float) -> Path:
    return work / "points" / f"{name}-{seed}-{METHODS[method].slug}-{strength:g}.json"


def collect(work: Path, name: str, out: Path) -> None:
    """Put a domain's points into its file of results."""
    settings = {"model": "small", "domain": name, "steps": STEPS, "batch": BATCH, "rate": RATE, "lora": LORA}
    files.write_sealed(out / f"language-{name}.json", {**settings, "rows": _rows(work, name)})


def _rows(work: Path, name: str) -> list[dict[str, Any]]:
    return [files.read_json(path) for path in sorted((work / "points").glob(f"{name}-*.json"))]


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m studies.evidence.language", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder of texts")
    parser.add_argument("--texts", type=Path, required=True, help="the folder of texts from packages")
    parser.add_argument("--work", type=Path, default=Path("runs/evidence"), help="the folder of models and points")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="run no others")
    parser.add_argument("--domains", nargs="+", choices=DOMAINS, default=list(DOMAINS), help="run no others")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="run no others")
    parser.add_argument("--rates", action="store_true", help="try the learning rates, and nothing else")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--out", type=Path, default=OUT, help="the folder of results")
    options = parser.parse_args(words)
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    lab = Lab(options.data, options.texts, options.work)
    if options.rates:
        return rates(lab)
    restored(options.out, options.work)
    run(lab, options.domains, options.seeds, options.methods, options.out)


if __name__ == "__main__":
    main()
