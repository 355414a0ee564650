"""The results as a Markdown section: the command, the table, the environment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from forgetless.lab.report.escape import escaped
from forgetless.lab.results import Compared, Estimate, Summary, compared, percent, points, summarize


def markdown(results: Mapping[str, Any], method: str | None = None) -> str:
    """Write the content of a `results.json` as Markdown: a row per task, a column per method, averages below.

    A cell reads "accuracy when the task was learned → accuracy after the last task", in percent, with the standard
    deviation of the latter over runs. Below is what one method has more than every other, on the same seeds. Names
    are escaped.

    Args:
        results: the content of a `results.json`.
        method: the one that is compared with the others.

    Raises:
        ForgetlessError: the content is not the results of an experiment, or holds no run yet; as `compared`.
    """
    return "\n".join([*_lines(summarize(results)), *_differences(compared(results, method))]) + "\n"


def _lines(summary: Summary) -> Iterator[str]:
    environment = dict(summary.environment)
    if command := environment.pop("command", None):
        yield from ("```console", f"$ {command}", "```", "")
    yield "| task | " + " | ".join(escaped(method.label) for method in summary.methods) + " |"
    yield "|---" * (1 + len(summary.methods)) + "|"
    for number, task in enumerate(summary.tasks):
        cells = (_pair(method.learned[number], method.now[number]) for method in summary.methods)
        yield f"| {escaped(task)} | {' | '.join(cells)} |"
    averages = (f"**{_pair(method.average_learned, method.average)}**" for method in summary.methods)
    yield f"| **average** | {' | '.join(averages)} |"
    yield f"| **forgetting** | {' | '.join(percent(method.forgetting) for method in summary.methods)} |"
    for name in summary.figures:
        yield f"| {escaped(name)} | {' | '.join(percent(method.figures.get(name)) for method in summary.methods)} |"
    yield f"| minutes | {' | '.join(_minutes(method.seconds) for method in summary.methods)} |"
    yield ""
    yield (
        f"{escaped(summary.score).capitalize()} on test data in percent, when learned → now; {summary.runs}. "
        f"{', '.join(escaped(f'{key} {value}') for key, value in environment.items())}."
    )


def _pair(learned: Estimate | None, now: Estimate | None) -> str:
    before = "–" if learned is None else Estimate(learned.mean).percent()
    return f"{before} → {percent(now)}"


def _minutes(seconds: Mapping[str, Estimate]) -> str:
    return f"{sum(estimate.mean for estimate in seconds.values()) / 60:.1f}"


def _differences(found: Compared | None) -> Iterator[str]:
    if found is None:
        return
    yield ""
    yield f"| {escaped(found.method)} minus | average | forgetting |"
    yield "|---|---|---|"
    for each in found.differences:
        yield f"| {escaped(each.other)} | {points(each.average)} | {points(each.forgetting)} |"
    yield ""
    yield "Differences on the same seeds in points, each with its own 95 % confidence interval."
