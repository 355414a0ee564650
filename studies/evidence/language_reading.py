"""What a language model's frontier wins back at the same new skill, with paired intervals; the frontiers' figure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from forgetless import files
from forgetless.lab.results.paired import paired
from studies.evidence.language_methods import METHODS
from studies.evidence.language_texts import DOMAINS
from studies.figures import legend, pyplot_module, save
from studies.repair_frontier import Tuning, at_least, tuning

#: The share of the new skill's gain at which methods are compared, and the least of it that the area reaches down to.
LEVEL, LEAST = 0.95, 0.5
_LEVELS = 26
#: A method's color and mark.
STYLES = {
    "MAS, a share held": ("#0072b2", "o"),
    "MAS": ("#56b4e9", "."),
    "blend by importance": ("#e69f00", "*"),
    "WiSE-FT": ("#000000", "s"),
    "L2-SP": ("#cc79a7", "D"),
    "EWC": ("#009e73", "^"),
    "KL": ("#d55e00", "v"),
    "replay": ("#999999", "X"),
    "LoRA": ("#882255", "P"),
}


def tunings(found: Mapping[str, Any], skill: str, before: tuple[str, ...]) -> list[Tuning]:
    """The fine-tunings of a domain's file, one for each seed that has both ends."""
    seeds = sorted({row["seed"] for row in found["rows"]})
    made = [
        tuning(f"{found['domain']} {seed}", [row for row in found["rows"] if row["seed"] == seed], skill, before)
        for seed in seeds
    ]
    return [each for each in made if each is not None]


def area(each: Tuning, method: str, what: str) -> float:
    """The mean of what is won back over all shares of the gain from 1 down to `LEAST`."""
    path = each.path(method)
    levels = [1 - (1 - LEAST) * step / (_LEVELS - 1) for step in range(_LEVELS)]
    return statistics.fmean(at_least(path, level, what) for level in levels)


def common(some: Sequence[Tuning]) -> list[Tuning]:
    """The fine-tunings with those rows alone whose method and setting all of them have."""
    shared = set.intersection(*({(row["method"], row["setting"]) for row in each.rows} for each in some))
    return [
        replace(each, rows=[row for row in each.rows if (row["method"], row["setting"]) in shared]) for each in some
    ]


def complete(out: Path, methods: Iterable[str], what: str) -> list[Tuning]:
    """The small model's fine-tunings in which every setting of these methods has been run, with their rows alone."""
    wanted = {(name, setting) for name in methods for setting in METHODS[name].strengths}
    made = [each for found in read(out, "language", list(DOMAINS)) for each in tunings(found, "new", (what,))]
    whole = [each for each in made if wanted <= {(row["method"], row["setting"]) for row in each.rows}]
    return common(whole) if whole else []


def table(
    methods: Sequence[str],
    some: Sequence[Tuning],
    uses: Mapping[str, str],
    what: str,
    beside: str,
    told: str = "uses of the old",
) -> Iterator[str]:
    """A Markdown table: what each method wins back at the same new skill, its area, and how far `beside` is from it."""
    yield f"| | {told} | won back at {100 * LEVEL:.0f} % of the new skill, % | − MAS | area, % | − MAS |"
    yield "|---|---|---|---|---|---|"
    for method in methods:
        cells = []
        for figure in (at, area):
            own, other = ({each.name: 100 * figure(each, name, what) for each in some} for name in (method, beside))
            cells += [f"{statistics.fmean(own.values()):.0f}", "" if method == beside else _apart(own, other)]
        yield f"| {method} | {uses[method]} | {' | '.join(cells)} |"


def by_domain(methods: Sequence[str], some: Sequence[Tuning], what: str, beside: str) -> str:
    """A sentence: the same differences where the domains are the sample, each the mean of its fine-tunings."""
    means = dict[str, dict[str, float]]()
    for method in (*methods, beside):
        found = dict[str, list[float]]()
        for each in some:
            found.setdefault(each.name.rsplit(" ", 1)[0], []).append(100 * at(each, method, what))
        means[method] = {domain: statistics.fmean(values) for domain, values in found.items()}
    apart = [f"{name} {_apart(means[name], means[beside])}" for name in methods if name != beside]
    return (
        f"Two fine-tunings of one domain share its texts. With the {len(means[beside])} domains as the sample, each "
        f"the mean of its fine-tunings, the differences from {beside} at {100 * LEVEL:.0f} % are: {', '.join(apart)}."
    )


def at(each: Tuning, method: str, what: str) -> float:
    """What is won back at `LEVEL` of the gain."""
    return at_least(each.path(method), LEVEL, what)


def apart(one: str, other: str, some: Sequence[Tuning], what: str) -> str:
    """How much more `one` wins back at `LEVEL` than `other`, with its interval over the fine-tunings."""
    own, theirs = ({each.name: 100 * at(each, name, what) for each in some} for name in (one, other))
    return _apart(own, theirs)


def _apart(own: Mapping[str, float], other: Mapping[str, float]) -> str:
    found = paired(own, other)
    return f"{found.mean:+.0f} [{found.low:+.0f}, {found.high:+.0f}]"


def ends(some: Sequence[Tuning], what: str, unit: str, digits: int) -> Iterator[str]:
    """A Markdown table: what fine-tuning gains and loses."""
    yield f"| {unit} | what was known, before → after | the new skill, before → after |"
    yield "|---|---|---|"
    for each in some:
        known, learned = ((each.base[key], each.tuned[key]) for key in (what, each.skill))
        yield (
            f"| {each.name} | {known[0]:.{digits}f} → {known[1]:.{digits}f} | "
            f"{learned[0]:.{digits}f} → {learned[1]:.{digits}f} |"
        )


def points(some: Sequence[Tuning], method: str, name: str, what: str) -> Iterator[str]:
    """Rows of a Markdown table: where each setting of a method lands, mean over the fine-tunings, and the least."""
    for setting in sorted({row["setting"] for each in some for row in each.of(method)}):
        found = [each.point(row) for each in some for row in each.of(method) if row["setting"] == setting]
        kept, won = zip(*((100 * point.kept, 100 * point.won[what]) for point in found), strict=True)
        cells = (f"{statistics.fmean(values):.0f} ({min(values):.0f} … {max(values):.0f})" for values in (kept, won))
        yield f"| {name.format(setting)} | {' | '.join(cells)} |"


def drawn(
    panels: Mapping[str, Sequence[Tuning]],
    what: Mapping[str, str],
    path: Path,
    styles: Mapping[str, tuple[str, str]] = STYLES,
) -> None:
    """The share won back against the share of the new skill that is kept, a panel for each kind of model."""
    pyplot = pyplot_module()
    figure, axes = pyplot.subplots(1, len(panels), figsize=(max(7.2, 4.6 * len(panels)), 4.6), squeeze=False)
    for axis, (title, some) in zip(axes[0], panels.items(), strict=True):
        for method, (color, mark) in styles.items():
            settings = sorted({row["setting"] for row in some[0].of(method)})
            means = [_mean(some, method, setting, what[title]) for setting in settings]
            line = sorted((each for each in means if each is not None), reverse=True)
            if line:
                axis.plot(*zip((100, 0), *line, strict=True), mark, ls="-", lw=1, ms=5, c=color, label=method)
        axis.set(title=title, xlabel="kept of the new skill, %", ylabel="won back of what was forgotten, %")
        axis.set(xlim=(40, 105), ylim=(-10, 110))
        axis.grid(alpha=0.3)
    legend(figure, axes[0])
    figure.tight_layout(rect=(0, 0.09, 1, 1))
    save(figure, path)


def _mean(some: Sequence[Tuning], method: str, setting: float, what: str) -> tuple[float, float] | None:
    found = [each.point(row) for each in some for row in each.of(method) if row["setting"] == setting]
    if len(found) < len(some):
        return None
    return 100 * statistics.fmean(p.kept for p in found), 100 * statistics.fmean(p.won[what] for p in found)


def read(out: Path, prefix: str, domains: Sequence[str]) -> list[dict[str, Any]]:
    """The files of results that are there."""
    return [files.read_sealed(path) for name in domains if (path := out / f"{prefix}-{name}.json").exists()]
