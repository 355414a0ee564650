"""The results as one self-contained HTML page: no script, no font, no request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from forgetless import files
from forgetless.lab.report.axis import axis_of
from forgetless.lab.report.sections import SECTIONS
from forgetless.lab.report.shown import Shown
from forgetless.lab.report.template import rendered
from forgetless.lab.results import MethodSummary, compared, summarize
from forgetless.lab.traces import Traces


def page(results: Mapping[str, Any], path: str | Path, traces: Traces | None = None, method: str | None = None) -> None:
    """Write the content of a `results.json` as a page to `path`, whole or not at all.

    `forgetless.lab.report.sections` has what it shows, section by section; one that has nothing to show is left out.

    Args:
        results: the content of a `results.json`.
        path: the file.
        traces: what the runs left on their way; None for results without.
        method: the one that is compared with the others on the same seeds.

    Raises:
        ForgetlessError: the content is not the results of an experiment, or holds no run yet; as `compared`.
    """
    summary = summarize(results)
    shown = Shown(results, summary, axis_of(summary), traces or Traces(), compared(results, method))
    values = {"summary": summary, "best": _best(summary.methods), "sections": list(_sections(shown))}
    files.write_text(path, rendered(Path(__file__).with_name("page.html"), **values))


def _sections(shown: Shown) -> Iterator[str]:
    """The HTML of every section that has something to show."""
    for each in SECTIONS:
        values = each.section(shown)
        if values is not None:
            template = Path(__file__).parent / "sections" / f"{each.__name__.rpartition('.')[2]}.html"
            yield rendered(template, shown=shown, summary=shown.summary, axis=shown.axis, **values)


def _best(methods: Sequence[MethodSummary]) -> MethodSummary | None:
    """The method of the highest average accuracy; `None` if there is nothing to compare."""
    known = [method for method in methods if method.average is not None]
    return max(known, key=lambda m: m.average.mean if m.average else 0.0) if len(known) > 1 else None
