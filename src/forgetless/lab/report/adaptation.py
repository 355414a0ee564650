"""The adaptation experiment as a table: the subset that is used, the rest, and whether the subset is what survives."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from forgetless.lab.results.paired import Tested, greater

#: (what Ω is measured on, method) → how it is called.
_TITLES = {
    ("everything", "joint"): "joint training, with all old data",
    ("subset", "mas"): "MAS, Ω on the subset",
    ("everything", "mas"): "MAS, Ω on everything",
    ("rest", "mas"): "MAS, Ω on the rest (a wrong set)",
    ("everything", "si"): "SI",
    ("everything", "finetune"): "FineTune",
}


def adaptation(results: Mapping[str, Mapping[str, Any]]) -> str:
    """What the runs of the adaptation experiment show, as Markdown.

    Args:
        results: what Ω was measured on → content of its `results.json`.
    """
    return "\n".join([*_table(results), "", *_tests(results)]) + "\n"


def _table(results: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    score = next(iter(results.values())).get("score", "accuracy")
    yield f"| {score}, % | subset when learned | subset now | rest when learned | rest now | later tasks | λ | seeds |"
    yield "|---|---|---|---|---|---|---|---|"
    for (used, method), title in _TITLES.items():
        runs = [run for run in results.get(used, {}).get("runs", ()) if run["method"] == method]
        if not runs:
            continue
        columns = [
            [100 * run["figures"]["subset"][0] for run in runs],
            [100 * run["figures"]["subset"][-1] for run in runs],
            [100 * run["figures"]["rest"][0] for run in runs],
            [100 * run["figures"]["rest"][-1] for run in runs],
            [100 * statistics.fmean(run["accuracy"][-1][1:]) for run in runs],
        ]
        strengths = {run["strength"] for run in runs if run.get("strength") is not None}
        shown = ", ".join(f"{each:g}" for each in sorted(strengths)) or "–"
        yield f"| {title} | {' | '.join(map(_estimate, columns))} | {shown} | {len(runs)} |"


def _estimate(values: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread}"


def figures(results: Mapping[str, Mapping[str, Any]], used: str, method: str, name: str) -> dict[int, float]:
    """Seed → a figure after the last task, in points."""
    runs = results.get(used, {}).get("runs", ())
    return {run["seed"]: 100 * run["figures"][name][-1] for run in runs if run["method"] == method}


def _tests(results: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield "| hypothesis (paired by seed, one-sided) | points | p (t) | p (Wilcoxon) | effect size d_z | seeds |"
    yield "|---|---|---|---|---|---|"
    ours = figures(results, "subset", "mas", "subset")
    for used, method in (("everything", "finetune"), ("everything", "si"), ("everything", "mas"), ("rest", "mas")):
        theirs = figures(results, used, method, "subset")
        if found := greater(ours, theirs):
            yield _row(f"subset: MAS on the subset > {_TITLES[used, method]}", found)
    selective = gap(results, "subset")
    for used in ("everything", "rest"):
        if found := greater(selective, gap(results, used)):
            yield _row(f"subset − rest: MAS on the subset > {_TITLES[used, 'mas']}", found)


def gap(results: Mapping[str, Mapping[str, Any]], used: str) -> dict[int, float]:
    """Seed → by how many points MAS kept more of the subset than of the rest."""
    runs = [run for run in results.get(used, {}).get("runs", ()) if run["method"] == "mas"]
    return {
        run["seed"]: 100
        * (
            (run["figures"]["subset"][-1] - run["figures"]["subset"][0])
            - (run["figures"]["rest"][-1] - run["figures"]["rest"][0])
        )
        for run in runs
    }


def _row(title: str, found: Tested) -> str:
    return f"| {title} | {found.mean:+.1f} | {found.p:.2g} | {found.p_ranks:.2g} | {found.effect:.2f} | {found.count} |"
