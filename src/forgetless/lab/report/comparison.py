"""Accuracies beside published ones, with paired differences, as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from forgetless.lab.published import Figure, Published
from forgetless.lab.report.escape import escaped
from forgetless.lab.results.paired import NEEDS_SCIPY, accuracies, by_method, has_intervals, paired
from forgetless.learn import metrics


def spread(figures: Sequence[float], digits: int = 2) -> str:
    """`"98.71 ± 0.20"`, or `"98.71"` of a single one."""
    mean = f"{statistics.fmean(figures):.{digits}f}"
    return mean if len(figures) < 2 else f"{mean} ± {statistics.stdev(figures):.{digits}f}"


def verdict(figures: Sequence[float], published: Figure | None) -> str:
    """Whether the mean is above, within or below the published mean ± its standard deviation, where that is known."""
    if published is None:
        return "–"
    mean, (their, sd) = statistics.fmean(figures), published
    if sd is None:
        return "–"
    return "within" if abs(mean - their) <= sd else "above" if mean > their else "**below**"


def comparison(
    results: Mapping[str, Mapping[str, Any]],
    published: Published,
    rival: str = "mas",
    forms: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Published accuracies with ours beside them, as Markdown: a block for each scenario that has runs.

    Args:
        results: scenario → content of its `results.json`.
        published: scenario → method → mean and standard deviation (or None), in percent.
        rival: the method that the others are compared with, on the same seeds.
        forms: methods that are another form of a published one → its name; its figure is theirs too, and so marked.
    """
    blocks = [
        _block(scenario, content, published.get(scenario, {}), rival, forms)
        for scenario, content in results.items()
        if content["runs"]
    ]
    if not has_intervals():
        blocks.append(NEEDS_SCIPY[:1].upper() + NEEDS_SCIPY[1:])
    return "\n\n".join(blocks)


def _block(
    scenario: str,
    content: Mapping[str, Any],
    published: Mapping[str, Figure],
    rival: str,
    forms: Mapping[str, str],
) -> str:
    found, lost = accuracies(content), by_method(content, metrics.forgetting_mas)
    strengths: dict[str, set[float]] = {}
    for run in content["runs"]:
        if run.get("strength") is not None:
            strengths.setdefault(run["method"], set()).add(float(run["strength"]))
    names = [*(name for name in published if name in found), *(name for name in found if name not in published)]
    lines = [
        f"**{scenario}-incremental**, average accuracy after the last task in %",
        "",
        f"| method | λ | published | ours | runs | verdict | forgetting | {rival} − it, 95 % interval | d_z |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        figures = list(found[name].values())
        theirs = published.get(forms.get(name, name))
        λ = sorted(strengths.get(name, ()))
        cells = [
            escaped(name),
            "–" if not λ else f"{λ[0]:g}" if len(λ) == 1 else f"{λ[0]:g} … {λ[-1]:g}",
            _published(theirs) + (f" ({forms[name]})" if theirs is not None and name in forms else ""),
            spread(figures),
            str(len(figures)),
            verdict(figures, theirs),
            spread(list(lost[name].values())),
            *_against(found, name, rival),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _published(figure: Figure | None) -> str:
    if figure is None:
        return "–"
    mean, sd = figure
    return f"{mean:.2f}" if sd is None else f"{mean:.2f} ± {sd:.2f}"


def _against(found: Mapping[str, Mapping[tuple[int, int], float]], name: str, rival: str) -> tuple[str, str]:
    """The paired difference with its interval, and its effect size."""
    if name == rival or rival not in found or not found[rival].keys() & found[name].keys():
        return "–", "–"
    if not has_intervals():
        both = found[rival].keys() & found[name].keys()
        return f"{statistics.fmean(found[rival][run] - found[name][run] for run in sorted(both)):+.2f}", "–"
    pair = paired(found[rival], found[name])
    if pair.count == 1:
        return f"{pair.mean:+.2f}", "–"
    return f"{pair.mean:+.2f} [{pair.low:+.2f}, {pair.high:+.2f}]", f"{pair.effect:.1f}"
