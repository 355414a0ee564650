"""What a frozen core of a language model keeps: the tables and the figure of docs/freezing.md.

    python -m studies.evidence.language --out results/freezing --methods "core by MAS" ... --data ...   # the runs
    python -m studies.freezing                                                                          # the page

A fine-tuning counts where all the methods that the page names have been run.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from studies import blocks
from studies.evidence.language_methods import CORES, METHODS
from studies.evidence.language_reading import area, complete, drawn, ends, points, table
from studies.repair_frontier import Tuning

OUT, PAGE, FIGURE = Path("results/freezing"), Path("docs/freezing.md"), "freezing.svg"
KNOWN = "general"
#: Ways to choose the core; variants of the first; what is done in its place.
CHOICES = tuple(name for name in CORES if "," not in name)
VARIANTS = tuple(name for name in CORES if "," in name)
RIVALS = ("MAS", "EWC", "L2-SP", "LoRA")
_COLORS = ("#0072b2", "#56b4e9", "#009e73", "#cc79a7", "#999999", "#d55e00", "#e69f00", "#000000", "#882255")
STYLES = dict(zip((*CHOICES, *RIVALS), zip(_COLORS, "os^DX*vPh", strict=True), strict=True))


def ranked(some: Sequence[Tuning], methods: Sequence[str]) -> list[str]:
    """The methods, the largest area first."""
    return sorted(methods, key=lambda method: -sum(area(each, method, KNOWN) for each in some))


def cores(out: Path) -> Iterator[str]:
    """What the fine-tunings gain and lose, every method at the same new skill, and where every core lands."""
    some, uses = complete(out, STYLES, KNOWN), {name: method.uses for name, method in METHODS.items()}
    yield from (*ends(some, KNOWN, "bits per character", 3), "")
    yield from (*table(ranked(some, [*STYLES]), some, uses, KNOWN, "MAS"), "")
    yield f"| mean over {len(some)} fine-tunings (least … most) | of the new skill kept, % | won back, % |"
    yield "|---|---|---|"
    for method in CHOICES:
        yield from points(some, method, f"{method}, {{:g}}", KNOWN)


def variants(out: Path) -> Iterator[str]:
    """Other ways to choose by the first importance; nothing before they have been run."""
    some = complete(out, (CHOICES[0], *VARIANTS), KNOWN)
    if not some:
        return
    yield "Others by the loss gradient: rows in place of elements, the share in each tensor by itself, and"
    yield "the importance weighed against that of 256 windows of the domain (`against=`)."
    yield ""
    yield f"| mean over {len(some)} fine-tunings (least … most) | of the new skill kept, % | won back, % |"
    yield "|---|---|---|"
    for method in (CHOICES[0], *VARIANTS):
        yield from points(some, method, f"{method}, {{:g}}", KNOWN)


def write(out: Path = OUT, page: Path = PAGE) -> None:
    """Write the tables into their blocks of the page, and the figure beside it."""
    blocks.inserted(page, "cores", "\n".join(cores(out)))
    blocks.inserted(page, "variants", "\n".join(variants(out)))
    some = complete(out, STYLES, KNOWN)
    panel = f"{len(some)} fine-tunings"
    drawn({panel: some}, {panel: KNOWN}, page.parent / "figures" / FIGURE, STYLES)


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m studies.freezing", description=__doc__)
    parser.add_argument("--results", type=Path, default=OUT, help="the folder of results")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page that takes the tables")
    options = parser.parse_args(words)
    write(options.results, options.page)


if __name__ == "__main__":
    main()
