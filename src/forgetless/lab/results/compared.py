"""The methods of some results compared on the same seeds: one method minus every other, with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from forgetless.errors import ForgetlessError
from forgetless.lab.results.paired import NEEDS_SCIPY, Paired, has_intervals, paired
from forgetless.lab.results.summary import MethodSummary, column, derived, known, summarize
from forgetless.learn import metrics

_OURS = "mas"  # what is compared with the others where nobody says otherwise
_METRICS = (metrics.average_accuracy, metrics.forgetting_mas)
_Figures = dict[tuple[int, int], float]  # seed and order → a share


@dataclass(frozen=True)
class Difference:
    """A method minus another, over the runs of the same seed and order, in shares.

    Attributes:
        other: what the other method is called in the table.
        average: of the average accuracy after the last task; None where fewer than two runs have it in common.
        forgetting: of `metrics.forgetting_mas`.
    """

    other: str
    average: Paired | None
    forgetting: Paired | None


@dataclass(frozen=True)
class Compared:
    """One method beside the others.

    Attributes:
        method: what it is called in the table.
        differences: it minus each of the others, in the table's order; those without two common runs are left out.
    """

    method: str
    differences: tuple[Difference, ...]


def points(pair: Paired | None) -> str:
    """A difference of shares as text, in points: `"+3.1 [+1.0, +5.2]"`; a dash for an unknown one."""
    if pair is None:
        return "–"
    # Adding 0.0 turns a rounded -0.0 into 0.0.
    mean, low, high = (f"{round(100 * value, 1) + 0.0:+.1f}" for value in (pair.mean, pair.low, pair.high))
    return f"{mean} [{low}, {high}]"


def compared(results: Mapping[str, Any], method: str | None = None) -> Compared | None:
    """Compare one method with every other of the same results, over the seeds that both have.

    The intervals are Student's, of 95 % each on its own: not corrected for how many methods are compared.

    Args:
        results: the content of a `results.json`.
        method: the one to compare, by name or as the table calls it; by default `mas`, or the first.

    Returns:
        None where no other method has two runs in common with it; without scipy, too, if no method was asked for.

    Raises:
        ForgetlessError: the results are not whole, no method or more than one is called so, or scipy is not installed.
    """
    methods = summarize(results).methods
    ours = _place(methods, method)
    if not has_intervals():
        if method is not None:
            raise ForgetlessError(NEEDS_SCIPY)
        return None
    figures = _figures(results)
    found = (
        Difference(each.label, *(_paired(mine, its) for mine, its in zip(figures[ours], figures[at], strict=True)))
        for at, each in enumerate(methods)
        if at != ours
    )
    shown = tuple(each for each in found if each.average or each.forgetting)
    return Compared(methods[ours].label, shown) if shown else None


def _place(methods: Sequence[MethodSummary], wanted: str | None) -> int:
    """Which of the methods is compared with the others."""
    names = [each.method for each in methods]
    if wanted is None:
        return names.index(_OURS) if _OURS in names else 0
    found = [at for at, each in enumerate(methods) if wanted in (each.method, each.label)]
    if len(found) != 1:
        labels = ", ".join(repr(each.label) for each in methods)
        raise ForgetlessError(f"{len(found) or 'none'} of the methods are called {wanted!r}; name one of {labels}.")
    return found[0]


def _figures(results: Mapping[str, Any]) -> list[list[_Figures]]:
    """Method → metric → what every run has of it, where it is known."""
    found: dict[tuple[str, str], list[_Figures]] = {}
    for run in results["runs"]:
        mine = found.setdefault(column(run), [{} for _ in _METRICS])
        for metric, figures in zip(_METRICS, mine, strict=True):
            if (value := known(metric, run["accuracy"])) is not None:
                figures[run["seed"], run.get("order", 0)] = value
    return list(found.values())


def _paired(ours: _Figures, theirs: _Figures) -> Paired | None:
    """None of a single run, which says nothing about the spread."""
    return paired(ours, theirs) if len(ours.keys() & theirs.keys()) > 1 else None


def with_derived(results: Mapping[str, Any], method: str | None = None) -> dict[str, Any]:
    """The results with what a table shows of them: `methods`, by `derived`, and `compared`, or None; all in shares.

    Raises:
        ForgetlessError: as `compared`.
    """
    found = compared(results, method)
    others = [
        {"other": each.other, "average_accuracy": _plain(each.average), "forgetting_mas": _plain(each.forgetting)}
        for each in (found.differences if found else ())
    ]
    differences = {"method": found.method, "level": 0.95, "minus": others} if found else None
    return {**results, "methods": derived(results), "compared": differences}


def _plain(pair: Paired | None) -> dict[str, float | None] | None:
    if pair is None:
        return None
    effect = pair.effect if math.isfinite(pair.effect) else None  # all differences are the same
    return {"mean": pair.mean, "low": pair.low, "high": pair.high, "d_z": effect, "runs": pair.count}
