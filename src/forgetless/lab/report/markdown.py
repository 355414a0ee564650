"""The results as a Markdown section: the command, the table, the environment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from forgetless.lab.report.escape import escaped
from forgetless.lab.results import Estimate, Summary, percent, summarize


def markdown(results: Mapping[str, Any]) -> str:
    """Write the content of a `results.json` as Markdown: a row per task, a column per method, averages below.

    A cell reads "accuracy when the task was learned → accuracy after the last task", in percent, with the standard
    deviation of the latter over runs. Names are escaped.

    Raises:
        ForgetlessError: the content is not the results of an experiment, or holds no run yet.
    """
    summary = summarize(results)
    return "\n".join(_lines(summary)) + "\n"


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
