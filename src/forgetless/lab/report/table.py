"""The results as a table for the terminal, with a legend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from forgetless.lab.results import (
    MEANING,
    Compared,
    Estimate,
    MethodSummary,
    Summary,
    compared,
    percent,
    points,
    summarize,
)
from forgetless.lab.results.paired import NEEDS_SCIPY, has_intervals

_WIDTH = 80  # what a terminal shows without wrapping, and what rich assumes of a pipe
_NAME = 24  # longer task names are cut


def table(results: Mapping[str, Any], method: str | None = None) -> Group:
    """Draw the content of a `results.json`: a row per task, a column per method, averages below.

    A cell reads "accuracy when the task was learned → accuracy after the last task", in percent. With several runs
    these are means, and the latter has its standard deviation. Methods that do not fit go below, and then what one of
    them has more than every other, on the same seeds: `forgetless.lab.results.compared`.

    Args:
        results: the content of a `results.json`.
        method: the one that is compared with the others.

    Raises:
        ForgetlessError: the content is not the results of an experiment, or holds no run yet; as `compared`.
    """
    summary = summarize(results)
    figures = summary.figures
    name = min(_NAME, max(len("forgetting"), *map(len, [*summary.tasks, *figures])))
    columns = [_column(method, figures) for method in summary.methods]
    width = 3 + max(len(line) for column in columns for cell in column for line in cell.plain.splitlines())
    fit = max(1, (_WIDTH - name) // width)
    blocks = [columns[start : start + fit] for start in range(0, len(columns), fit)]
    drawn = (_block(summary.tasks, figures, block) for block in blocks)
    found = compared(results, method)
    return Group(_title(summary), *drawn, *_differences(summary, found), _legend(summary, found is not None))


def _differences(summary: Summary, found: Compared | None) -> Iterator[Table | Text]:
    """One method minus every other; a sentence where scipy is missing for it."""
    if found is not None:
        drawn = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="")
        drawn.add_column(Text(f"{found.method} minus", "bold"))
        for head in ("average now", "forgetting", "runs"):
            drawn.add_column(Text(head, "bold"), justify="right", no_wrap=True)
        for each in found.differences:
            count = max(pair.count for pair in (each.average, each.forgetting) if pair)
            drawn.add_row(Text(each.other), points(each.average), points(each.forgetting), str(count))
        yield drawn
    elif len(summary.methods) > 1 and not has_intervals() and any(len(each.seeds) > 1 for each in summary.methods):
        yield Text(NEEDS_SCIPY[:1].upper() + NEEDS_SCIPY[1:] + "\n", "dim")


def _title(summary: Summary) -> Text:
    tasks = "one task" if len(summary.tasks) == 1 else f"{len(summary.tasks)} tasks, one after the other"
    tasks += "" if summary.places == summary.tasks else ", in several orders"
    return Text(f"\n{summary.experiment}: {tasks}", "bold")


def _block(tasks: Sequence[str], figures: Sequence[str], columns: Sequence[Sequence[Text]]) -> Table:
    drawn = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="")
    drawn.add_column(Text("\ntask", "bold"), overflow="ellipsis", no_wrap=True, max_width=_NAME)
    for head, *_ in columns:
        drawn.add_column(head, justify="right", no_wrap=True)
    for row, name in enumerate([*tasks, "average", "forgetting", *figures], start=1):
        drawn.add_row(Text(name), *(column[row] for column in columns), end_section=row in (len(tasks), len(tasks) + 2))
    return drawn


def _column(method: MethodSummary, figures: Sequence[str]) -> list[Text]:
    """The head and the cells of a method: a row per task, then the average, the forgetting and the other figures."""
    pairs = zip(method.learned, method.now, strict=True)
    return [
        Text.assemble((method.label, "bold"), ("\nlearned → now", "dim")),
        *(_pair(learned, now, _color(learned, now)) for learned, now in pairs),
        _pair(method.average_learned, method.average, "bold"),
        Text(percent(method.forgetting), "bold"),
        *(Text(percent(method.figures.get(figure))) for figure in figures),
    ]


def _pair(learned: Estimate | None, now: Estimate | None, style: str) -> Text:
    before = "–" if learned is None else Estimate(learned.mean).percent()
    return Text.assemble((f"{before} → ", "dim"), (f"{percent(now):>5}", style))


def _color(learned: Estimate | None, now: Estimate | None) -> str:
    if learned is None or now is None:
        return ""
    lost = learned.mean - now.mean
    return "red" if lost > 0.1 else "yellow" if lost > 0.03 else "green"


def _legend(summary: Summary, differences: bool) -> Table:
    legend = Table.grid(padding=(0, 2))
    for word, meaning in _meanings(summary, differences):
        legend.add_row(Text(word), Text(meaning, "dim"))
    return legend


def _meanings(summary: Summary, differences: bool) -> Iterator[tuple[str, str]]:
    yield "learned", f"{summary.score} on test data, in percent, right after the task was learned"
    yield "now", f"{summary.score} on test data after the last task"
    yield "forgetting", "points lost on average over all tasks but the last; 0 is none"
    names = dict.fromkeys(method.method for method in summary.methods)  # a method with several λ has several columns
    yield from ((name, MEANING[name]) for name in names if name in MEANING)
    if any(len(method.seeds) > 1 for method in summary.methods):
        yield "±", f"standard deviation over {summary.runs}; all numbers are means over them"
    if differences:
        yield "[ , ]", "95 % confidence interval of the difference on the same seeds, each alone"
