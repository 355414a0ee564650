"""The paper's two-task sequences: four streams of two of the same three tasks, shown as its tables 2 and 3."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from forgetless.lab.experiments.parts.settings import setting
from forgetless.lab.published.mas_2018 import MEASURED_ON, PAIRS, TITLES, TWO_TASKS
from forgetless.lab.results import summarize
from forgetless.lab.running.experiment import Experiment, Suite
from forgetless.learn.task import Task

TASKS = ("flowers", "scenes", "birds")
#: What of one pair is shown: the first task at the end, what it lost since it was learned, and the second task.
Cell = tuple[float, float, float]


def pairs_setting() -> Any:
    """The setting `pairs`."""
    return setting(False, help="The four two-task sequences of tables 2 and 3 instead of the eight tasks.")


def suite(experiment: Experiment, tasks: Mapping[str, Task]) -> Suite:
    """The four pairs of the tasks, by name, as experiments that are otherwise like `experiment`."""
    parts = {}
    for pair in PAIRS:
        chosen = [tasks[name] for name in pair.split("-")]
        parts[pair] = dataclasses.replace(experiment, tasks=chosen, config={**experiment.config, "pair": pair})
    return Suite(experiment.name, parts, two_tasks)


def two_tasks(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Table 2 as Markdown: ours, and the paper's beside it.

    Args:
        results: pair → content of its `results.json`; what has not been run is left empty.
    """
    lines = list(_head("method"))
    for method in TITLES:
        ours = [cell(results.get(pair), method) for pair in PAIRS]
        if any(ours):
            lines.append(_row(f"{TITLES[method]} | ours", ours))
        if method in TWO_TASKS:
            lines.append(_row(f"{TITLES[method]} | paper", TWO_TASKS[method]))
    return "\n".join(lines) + "\n"


def measured_on(results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Table 3 as Markdown, ours and the paper's: what Ω was measured on → pair → content of its `results.json`."""
    rows = [(method, source) for method in ("mas", "local-mas") for source in ("train", "test", "both")]
    lines = list(_head("method | Ω on"))
    for method, source in rows:
        ours = [cell(results.get(source, {}).get(pair), method) for pair in PAIRS]
        if any(ours):
            lines.append(_row(f"{TITLES[method]} | {source} | ours", ours))
        lines.append(_row(f"{TITLES[method]} | {source} | paper", MEASURED_ON[method, source]))
    return "\n".join(lines) + "\n"


def cell(results: Mapping[str, Any] | None, method: str) -> Cell | None:
    """The figures of a method on a pair, in percent, means over seeds; None where there is no run."""
    if not results or not results["runs"]:
        return None
    for found in summarize(results).methods:
        if found.method == method and found.now[0] and found.learned[0] and found.now[1]:
            kept, was, new = (100 * each.mean for each in (found.now[0], found.learned[0], found.now[1]))
            return kept, kept - was, new
    return None


def _head(names: str) -> Iterator[str]:
    yield f"| {names} | whose | {' | '.join(pair.replace('-', ' → ') for pair in PAIRS)} |"
    yield "|---" * (2 + names.count("|") + len(PAIRS)) + "|"


def _row(names: str, cells: Sequence[Cell | None]) -> str:
    shown = ("–" if each is None else f"{each[0]:.1f} ({each[1] + 0.0:+.1f}) / {each[2]:.1f}" for each in cells)
    return f"| {names} | {' | '.join(shown)} |"
