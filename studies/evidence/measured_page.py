"""The part of docs/evidence.md that says what the measurement of Ω buys.

python -m studies.evidence.measured_page   # from what is in results/
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from forgetless import files
from forgetless.lab.results.paired import Paired, paired
from studies import blocks
from studies.evidence.language import OUT
from studies.evidence.language_reading import LEVEL, at
from studies.evidence.language_texts import DOMAINS
from studies.evidence.measured import KNOWN, lower, reference
from studies.evidence.measured_omegas import COUNT, REFERENCE, VARIANTS, names
from studies.repair_frontier import Row, Tuning

PAGE, WHAT = Path("docs/evidence.md"), "general"
#: What the same base's results have at the same grid.
RIVALS = ("EWC", "L2-SP")
_SHARE = f"{100 * LEVEL:.0f} %"
_ABOUT = """The second base again, seed 0 of each domain, and MAS with one thing changed at a time. The reference is
Ω as the library measures it: exact, per window, on {count} windows of the three sources. Every Ω is divided by its
mean, that of batches by the reference's, so that one grid of λ serves all. Each is trained at neighboring λ of that
grid until one keeps {share} of the new skill and the next less, and read on the line between them, as above. With
three fine-tunings the intervals are wide, 2.5 standard deviations of a difference to either side, and one of twenty
misses by chance. *Rank correlation* is Spearman's with the reference over all 11.2 M weights, and *top tenth* the
share of the most important tenth that both have: 10 % by chance. *Mean* is that of Ω before the division and *cost*
the processor's time of the measurement, both relative to the reference."""
_SCALE = """**At a fixed λ** the Ω of a batch protects less, because gradients cancel in it. Here Ω is divided by the
*reference's* mean, and λ are the reference's two around {share} of the new skill. Differences from the reference at
the same λ, in points:"""

QUESTIONS = {
    "batches": "What does exactness buy beyond the scale?",
    "windows": "What does the number of windows buy?",
    "probes": "What does another text cost?",
    "form": "Another form, or another scale?",
}
_DECAY = """**Does old Ω have to decay?** That takes old uses that change: see
[use that changes](adaptation.md#use-that-changes)."""
_AHEAD = "Ahead of the reference by more than the interval: {names}."
_STAYS = """Nothing that was trained is ahead of the reference by more than its interval, so the recommendation is the
default: `forgetless.mas` on samples of the old use, exact and with the modulus."""


def write(out: Path = OUT, page: Path = PAGE, known: Path = KNOWN) -> None:
    """Write the block of the page; nothing where there are no results."""
    path = out / "measured.json"
    if path.exists() and page.exists():
        blocks.inserted(page, "measured", blocks.wrapped("\n".join(told(files.read_sealed(path), known))))


def told(found: Mapping[str, Any], known: Path = KNOWN) -> Iterator[str]:
    """The whole block."""
    some = joined(found, known)
    yield from (_line(_ABOUT.format(count=COUNT, share=_SHARE)), "")
    yield from blocks.console(
        "python -m studies.evidence.measured --data DATA --texts TEXTS --work runs/evidence --measure",
        "python -m studies.evidence.measured --data DATA --texts TEXTS --work runs/evidence",
        "python -m studies.evidence.measured_page",
    )
    yield from (*table(found, some), "")
    if len(rows := [*fixed(some)]) > 2:
        yield from (_line(_SCALE.format(share=_SHARE)), "", *rows, "")
    yield from answers({row["variant"] for row in found["compared"]}, some)


def joined(found: Mapping[str, Any], known: Path = KNOWN) -> list[Tuning]:
    """The fine-tunings of the same base, with the rows of this study among theirs."""
    made = []
    for domain in DOMAINS:
        first = reference(domain, known)
        own = [row for row in found["rows"] if row["domain"] == domain]
        made.append(replace(first, rows=[*first.rows, *own]))
    return made


def whole(some: Sequence[Tuning], method: str) -> bool:
    """Whether all fine-tunings have points of a method on both sides of `LEVEL`."""
    return all({point.kept >= LEVEL for point in each.path(method)} == {True, False} for each in some)


def won(some: Sequence[Tuning], method: str) -> dict[str, float]:
    """Fine-tuning → what is won back at `LEVEL`, in percent."""
    return {each.name: 100 * at(each, method, WHAT) for each in some}


def behind(some: Sequence[Tuning], method: str, other: str = "MAS") -> Paired:
    """How much more a method wins back than another, by default than the reference."""
    return paired(won(some, method), won(some, other))


def table(found: Mapping[str, Any], some: Sequence[Tuning]) -> Iterator[str]:
    """A Markdown table: every Ω beside the reference, and what it wins back."""
    yield f"| Ω | windows | cost | mean | rank correlation | top tenth | won back at {_SHARE}, % | − reference |"
    yield "|---|---|---|---|---|---|---|---|"
    for name in VARIANTS:
        rows = [row for row in found["compared"] if row["variant"] == name]
        if not rows:
            continue
        (first,) = (row for row in found["compared"] if row["variant"] == REFERENCE)
        cost = statistics.fmean(row["seconds"] for row in rows) / first["seconds"]
        figures = [statistics.fmean(row[key] for row in rows) for key in ("scale", "spearman", "top")]
        scale = "" if VARIANTS[name].about == "form" else _short(figures[0])
        cells = [f"{rows[0]['windows']:,}", _short(cost), scale]
        cells += [f"{figures[1]:.2f}", f"{100 * figures[2]:.0f} %"]
        yield f"| {name} | {' | '.join(cells)} | {' | '.join(_won(some, 'MAS' if name == REFERENCE else name))} |"
    for name in RIVALS:
        yield f"| {name} | | | | | | {' | '.join(_won(some, name))} |"


def fixed(some: Sequence[Tuning]) -> Iterator[str]:
    """A Markdown table: what a batch's Ω does at the λ of the reference."""
    yield "| Ω | the new skill kept, lower λ | won back | the new skill kept, higher λ | won back |"
    yield "|---|---|---|---|---|"
    for name in names("batches"):
        if all(_beside(each, name, place) for each in some for place in (0, 1)):
            cells = [_interval(each) for place in (0, 1) for each in same(some, name, place)]
            yield f"| {name} | {' | '.join(cells)} |"


def same(some: Sequence[Tuning], name: str, place: int) -> tuple[Paired, Paired]:
    """What is kept and won back more than by the reference at the same λ, the lower or the higher one, in points."""
    kept, back = dict[str, tuple[float, float]](), dict[str, tuple[float, float]]()
    for each in some:
        ((row, first),) = _beside(each, name, place)
        ours, theirs = each.point(row), each.point(first)
        kept[each.name] = (100 * ours.kept, 100 * theirs.kept)
        back[each.name] = (100 * ours.won[WHAT], 100 * theirs.won[WHAT])
    return _apart(kept), _apart(back)


def answers(measured: Collection[str], some: Sequence[Tuning]) -> Iterator[str]:
    """A line for each question, and what follows for the default.

    Args:
        measured: the variants whose Ω was compared with the reference.
        some: the fine-tunings.
    """
    for about, question in QUESTIONS.items():
        yield f"- **{question}** {' '.join(_sentences(measured, some, names(about)))}"
    yield f"- {_line(_DECAY)}"
    ahead = [name for name in VARIANTS if whole(some, name) and behind(some, name).low > 0]
    yield f"- **Which one, then?** {_AHEAD.format(names=', '.join(ahead)) if ahead else _line(_STAYS)}"


def _sentences(measured: Collection[str], some: Sequence[Tuning], wanted: Sequence[str]) -> Iterator[str]:
    """Which of these win back more or less than the reference, by more than their interval, and which have not run."""
    found = {name: behind(some, name) for name in wanted if whole(some, name)}
    told = {
        "More than the reference": {name: each for name, each in found.items() if each.low > 0},
        "Less than the reference": {name: each for name, each in found.items() if each.high < 0},
        "Not told apart from it by three fine-tunings": {
            name: each for name, each in found.items() if each.low <= 0 <= each.high
        },
    }
    for said, which in told.items():
        if which:
            yield f"{said}: {', '.join(f'{name} {_interval(each)}' for name, each in which.items())}."
    rest = [name for name in wanted if name not in found]
    alone = [f"{name} {gap:+.0f} ({of})" for name in rest for of, gap in _alone(some, name)]
    if alone:
        yield f"In single fine-tunings, which have no interval: {', '.join(alone)}."
    if only := [name for name in rest if name in measured]:
        yield f"Measured, but not trained in all three domains: {', '.join(only)}."
    if never := [name for name in rest if name not in measured]:
        yield f"Not run: {', '.join(never)}."


def _alone(some: Sequence[Tuning], name: str) -> Iterator[tuple[str, float]]:
    """The fine-tunings with points on both sides of `LEVEL`, and how much more is won back than by the reference."""
    for each in some:
        if whole([each], name):
            yield each.name, won([each], name)[each.name] - won([each], "MAS")[each.name]


def _beside(each: Tuning, name: str, place: int) -> list[tuple[Row, Row]]:
    """A method's row at the reference's λ on that side of `LEVEL`, and the reference's; nothing where it is missing."""
    grid = each.of("MAS")
    first = grid[lower([each.point(row).kept for row in grid]) + place]
    return [(row, first) for row in each.of(name) if row["setting"] == first["setting"]]


def _apart(both: Mapping[str, tuple[float, float]]) -> Paired:
    return paired({key: ours for key, (ours, _) in both.items()}, {key: theirs for key, (_, theirs) in both.items()})


def _won(some: Sequence[Tuning], method: str) -> tuple[str, str]:
    if not whole(some, method):
        return "–", ""
    return f"{statistics.fmean(won(some, method).values()):.0f}", "" if method == "MAS" else _interval(
        behind(some, method)
    )


def _interval(found: Paired) -> str:
    return f"{found.mean:+.0f} [{found.low:+.0f}, {found.high:+.0f}]"


def _short(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def _line(text: str) -> str:
    return re.sub(r"\n", " ", text)


if __name__ == "__main__":
    write()
