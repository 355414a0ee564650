"""The language models' part of docs/evidence.md: tables, and the figure of the frontiers.

python -m studies.evidence.language_page   # from what is in results/
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from forgetless import files
from studies import blocks
from studies.evidence.language import ASKED, BATCH, MEASURED, OUT, RATES, STEPS
from studies.evidence.language_methods import CORES, METHODS
from studies.evidence.language_reading import (
    apart,
    at,
    by_domain,
    common,
    complete,
    drawn,
    ends,
    points,
    read,
    table,
    tunings,
)
from studies.evidence.language_texts import DOMAINS
from studies.repair_frontier import Tuning
from studies.repair_texts import DOMAINS as REAL

PAGE, FIGURE = Path("docs/evidence.md"), "evidence-language.svg"
_REPAIRS = {"MAS in training": "MAS, a share held", "importance": "blend by importance"}
_SKILLS = {"shakespeare": "target loss", "banking": "target accuracy", "clinc": "target accuracy"}
#: Shares held in place of strengths: points of a user without a search, not frontiers.
_SHARES = ("MAS, a share held", "MAS, share of the movement")
_DEFAULTS = {"MAS, share of the movement": "`HoldShare({:g})`", "KL": "`Distillation(model, old)`, λ = {:g}"}
#: Repairs that need nothing of the old; see `studies.repair`.
_FREE = {"TIES trim": "nothing", "DG-Hard": "nothing"}
#: What was known before, in the small model's rows and in the real one's.
SMALL, GENERAL, CHAT = "general", "general agreement", "chat agreement"

_ABOUT_SMALL = """A small model (Llama's architecture, 11.2 M weights, a vocabulary of 4,096 of its own) is made here
from 16 MB of English: WikiText-2's validation and test text, the kernel's manuals, seven novels. Then it learns one
narrow domain at a time: {steps} steps of {batch} windows of 128 tokens, AdamW, no weight decay, gradients clipped at
norm 1, a rate that falls to 0, from {rate:g}, or {lora:g} for LoRA and OSF: of {rates} the one that learned
Shakespeare best. Shakespeare is for development: the grids and rates were settled on it. What was known is the mean
of the bits per character of {asked} held-out windows of each of the three sources; the new skill is that of the
domain's held-out end. Ω is measured on {measured} other windows of the three sources, without labels. The model is
young (1,500 steps), so the figures are of forgetting, not of good English."""
_READ = """**Won back** is the share of what fine-tuning loses that a method undoes: 0 is fine-tuning, 100 the base.
The first column takes the most that a method wins back while it keeps 95 % of fine-tuning's gain, along the straight
lines between any two of its points, fine-tuning among them; the **area** is the mean over all levels from 100 % down
to 50 %. Every method has its strengths from one grid of its own, and the best is read off the exam for all methods
alike. The grids were fixed before Python
and the licenses were run, but for the least λ of MAS, L2-SP and EWC (0.001), which was added to all three after that.
The table is over all three domains, the one of development included. Differences are paired by fine-tuning, with 95 %
intervals (Student's t) that take the fine-tunings for independent."""
_FORMS = ("MAS", "MAS in the loss", "MAS, gradient")
_ABOUT_FORMS = """**The form of the penalty.** The pull after the step (MAS above), the penalty as a term of the
loss and its gradient added before the step end at the same weights in a long training; this one is short. Over the
same grid, on the {number} fine-tunings where all three were run (`--methods "MAS in the loss" "MAS, gradient"`):"""
_AGAIN = ("KL", "MAS + KL", "MAS", "L2-SP", "EWC", "WiSE-FT", "LoRA", "OSF")
_ABOUT_AGAIN = """**On a second base, and both together.** The same recipe on another machine makes another base: it
knows {known:.3f} bits where the first knew {first:.3f}. There are {number} fine-tunings of it ({names};
`--out results/freezing`). *MAS + KL* is KL with half of the movement held by MAS (told the length), over the
strengths of KL. *OSF* (PEFT) trains all weights but a share of each layer's largest singular directions, a quarter to
nine tenths of them:"""
_TOGETHER = """At 95 % of the new skill MAS + KL is {apart} points from KL alone: importance and old answers add up a
little."""
_ABOUT_REAL = """SmolLM2-135M-Instruct (4-bit in origin) learns three narrow domains in the way of
[repair](repair.md#evidence-on-a-language-model), where the models, the exam and the other repairs are described. What
was known: its own first choices on general text and in chat; the new skill is the accuracy of greedy answers, or the
loss for Shakespeare. One seed, so the spread is over three fine-tunings. MAS has two strengths here, a quarter and a
half of the weights held, so its area ends where the second ends."""
_ABOUT_MORE = """**More methods, on {names} alone.** KL, L2-SP and EWC have two strengths each here, and LoRA one
training whose change is scaled three times: a training takes minutes to a quarter of an hour on one core. One
fine-tuning has no interval. At 95 % of the new skill:"""
_MORE = ("KL", "EWC", "L2-SP", "LoRA")


def write(out: Path = OUT, page: Path = PAGE) -> None:
    """Write the tables into their block of the page, and the figure beside it; nothing where there are no results."""
    small = _small(out)
    if not small or not page.exists():
        return
    whole, forms, again = _real(out), _forms(out), complete(out.parent / "freezing", _AGAIN, SMALL)
    real, more = common(whole), [each for each in whole if all(each.of(method) for method in _MORE)]
    found = read(out, "language", list(DOMAINS))[0]
    blocks.inserted(
        page,
        "language",
        blocks.wrapped(
            "\n".join(
                [
                    *_about_small(found, small),
                    *_about_again(again, small),
                    *_about_forms(forms),
                    *_about_real(real),
                    *_about_more(more),
                ]
            )
        ),
    )
    blocks.inserted(page, "defaults", "\n".join(_defaults(complete(out.parent / "freezing", _DEFAULTS, SMALL))))
    panels = {"small model": small, "SmolLM2-135M, in chat": real}
    drawn(panels, {"small model": SMALL, "SmolLM2-135M, in chat": CHAT}, page.parent / "figures" / FIGURE)


def _small(out: Path) -> list[Tuning]:
    found = read(out, "language", list(DOMAINS))
    made = [each for one in found for each in tunings(one, "new", (SMALL, "agreement"))]
    return common(made) if made else made


def _forms(out: Path) -> list[Tuning]:
    """The fine-tunings with every form of the penalty."""
    made = [each for one in read(out, "language", list(DOMAINS)) for each in tunings(one, "new", (SMALL, "agreement"))]
    whole = [each for each in made if all(each.of(form) for form in _FORMS)]
    return common(whole) if whole else whole


def _real(out: Path) -> list[Tuning]:
    """The rows of `studies.repair` and those of this study, which have one training and one exam."""
    made = list[Tuning]()
    for name in REAL:
        first = files.read_sealed(out.parent / "repair" / f"{name}.json")
        rows = [{**row, "seed": 0, "method": _REPAIRS.get(row["method"], row["method"])} for row in first["rows"]]
        more = [row for one in read(out, "smollm2", [name]) for row in one["rows"]]
        made += tunings({"domain": name, "rows": [*rows, *more]}, _SKILLS[name], (GENERAL, CHAT))
    return made


def _about_small(found: Mapping[str, Any], some: Sequence[Tuning]) -> Iterator[str]:
    about = {"rate": found["rate"], "lora": found["lora"], "rates": ", ".join(f"{rate:g}" for rate in RATES)}
    yield from ("### A small model, many methods", "")
    yield _line(_ABOUT_SMALL.format(steps=STEPS, batch=BATCH, asked=ASKED, measured=MEASURED, **about))
    yield ""
    yield from blocks.console(
        "python -m studies.evidence.language_base --data DATA --texts TEXTS --out runs/evidence/small",
        "python -m studies.evidence.language --data DATA --texts TEXTS --work runs/evidence",
    )
    yield from (*ends(some, SMALL, "bits per character", 3), "", _line(_READ), "")
    swept = [name for name in METHODS if len(METHODS[name].strengths) > 1 and name not in _SHARES and name not in CORES]
    frontiers = [name for name in _methods(some) if name in swept]
    uses = {name: method.uses for name, method in METHODS.items()}
    ranked = _ranked(some, frontiers, SMALL)
    yield from (*table(ranked, some, uses, SMALL, "MAS"), "")
    if len({each.name.rsplit(" ", 1)[0] for each in some}) > 1:
        yield from (by_domain(ranked, some, SMALL, "MAS"), "")
    yield from (f"![what is won back against what is kept of the new skill](figures/{FIGURE})", "")


def _about_forms(some: Sequence[Tuning]) -> Iterator[str]:
    if some:
        uses = dict(zip(_FORMS, ("after the step", "in the loss", "before the step, after clipping"), strict=True))
        yield from (_line(_ABOUT_FORMS.format(number=len(some))), "")
        yield from (*table(_FORMS, some, uses, SMALL, "MAS", "where it acts"), "")


def _about_again(some: Sequence[Tuning], first: Sequence[Tuning]) -> Iterator[str]:
    if some:
        about: dict[str, Any] = {"known": some[0].base[SMALL], "first": first[0].base[SMALL], "number": len(some)}
        about["names"] = ", ".join(each.name for each in some)
        uses = {name: method.uses for name, method in METHODS.items()}
        yield from (_line(_ABOUT_AGAIN.format(**about)), "")
        yield from (*table(_ranked(some, _AGAIN, SMALL), some, uses, SMALL, "MAS"), "")
        yield from (_line(_TOGETHER.format(apart=apart("MAS + KL", "KL", some, SMALL))), "")


def _about_real(some: Sequence[Tuning]) -> Iterator[str]:
    yield from ("### A real model", "", _line(_ABOUT_REAL), "")
    yield from blocks.console("python -m studies.evidence.language_real --data DATA --work runs/repair")
    names = [name for name in (*METHODS, *_FREE) if name in _methods(some)]
    uses = {**{name: method.uses for name, method in METHODS.items()}, **_FREE}
    for what, title in ((CHAT, "in chat"), (GENERAL, "on general text")):
        yield from (f"First choices {title}:", "")
        yield from (*table(_ranked(some, names, what), some, uses, what, "MAS, a share held"), "")


def _about_more(some: Sequence[Tuning]) -> Iterator[str]:
    if some:
        names = [name for name in (*METHODS, *_FREE) if name in _methods(some) and name not in ("base", "fine-tuned")]
        uses = {**{name: method.uses for name, method in METHODS.items()}, **_FREE}
        domains = " and ".join(each.name.rsplit(" ", 1)[0].capitalize() for each in some)
        yield from (_line(_ABOUT_MORE.format(names=domains)), "")
        yield "| | uses of the old | won back of first choices in chat, % | … on general text, % |"
        yield "|---|---|---|---|"
        for name in _ranked(some, names, CHAT):
            won = (100 * fmean(at(each, name, what) for each in some) for what in (CHAT, GENERAL))
            yield f"| {name} | {uses[name]} | {' | '.join(f'{each:.0f}' for each in won)} |"
        yield ""


def _defaults(some: Sequence[Tuning]) -> Iterator[str]:
    """The strengths that nobody searches for, on the second small model."""
    yield f"| {len(some)} fine-tunings, mean (least … most) | of the new skill kept, % | won back, % |"
    yield "|---|---|---|"
    ones = [
        replace(each, rows=[row for row in each.rows if row["method"] != "KL" or row["setting"] == 1]) for each in some
    ]
    for method, name in _DEFAULTS.items():
        yield from points(ones, method, name, SMALL)


def _methods(some: Sequence[Tuning]) -> list[str]:
    return list(dict.fromkeys(row["method"] for row in some[0].rows))


def _ranked(some: Sequence[Tuning], methods: Sequence[str], what: str) -> list[str]:
    return sorted(methods, key=lambda method: -sum(at(each, method, what) for each in some))


def _line(text: str) -> str:
    return re.sub(r"\n", " ", text)


if __name__ == "__main__":
    write()
