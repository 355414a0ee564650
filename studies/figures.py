"""Figures and tables of the frontier curves. Figures need matplotlib: `pip install 'forgetless[figures]'`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forgetless import files
from forgetless.errors import ForgetlessError

Points = Mapping[str, Sequence[Mapping[str, Any]]]  # pair → its points, as `studies.frontier` writes them

#: Curves that stand for a whole grid of strengths, with a color and a mark each.
_LINES = {
    "MAS exact, pull": ("#0072b2", "o"),
    "MAS per batch, pull": ("#56b4e9", "s"),
    "MAS exact, gradient": ("#d55e00", "v"),
    "EWC, pull": ("#009e73", "^"),
    "L2-SP, pull": ("#cc79a7", "D"),
}
_SINGLE = {
    "fine-tuning": ("#000000", "x"),
    "frozen backbone": ("#000000", "+"),
    "stability decay": ("#e69f00", "*"),
    "KeepAgreement(0.95)": ("#e69f00", "P"),
    "DriftBudget(mean ‖F‖²)": ("#e69f00", "X"),
}
#: What predicts forgetting, and whether it needs samples of the old use.
PREDICTORS = {
    "bound": "Σ Ω |θ−θ*|",
    "drift": "Σ Ω (θ−θ*)²",
    "distance": "‖θ−θ*‖",
    "kl": "KL on unlabeled probes",
}


def finished(points: Points) -> Points:
    """The points that did not diverge."""
    return {pair: [each for each in found if "diverged" not in each] for pair, found in points.items()}


def frontier(points: Points, path: Path) -> None:
    """Old-task accuracy against new-task accuracy, a panel per pair, a line per kind of protection over λ."""
    pyplot = pyplot_module()
    figure, axes = pyplot.subplots(1, len(points), figsize=(4.2 * len(points), 4.2), squeeze=False)
    for axis, (pair, found) in zip(axes[0], finished(points).items(), strict=True):
        for curve, (color, mark) in _LINES.items():
            own = sorted((each for each in found if each["curve"] == curve), key=lambda each: each["strength"])
            axis.plot([p["new"] for p in own], [p["old"] for p in own], mark, ls="-", lw=1, ms=5, c=color, label=curve)
            for each in own if curve == "MAS exact, pull" else ():
                axis.annotate(
                    f"{each['strength']:g}",
                    (each["new"], each["old"]),
                    xytext=(3, 3),
                    textcoords="offset points",
                    size=7,
                )
        for each in found:
            if each["curve"] in _SINGLE:
                color, mark = _SINGLE[each["curve"]]
                axis.plot(each["new"], each["old"], mark, ms=9, c=color, label=each["curve"])
        axis.set(title=pair, xlabel="accuracy on the new task", ylabel="accuracy on the old task")
        axis.grid(alpha=0.3)
    legend(figure, axes[0])
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    save(figure, path)


def legend(figure: Any, axes: Sequence[Any]) -> None:
    """One legend below all panels, with what any of them shows."""
    handles = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="lower center", ncol=5, fontsize=8, frameon=False)


def prediction(points: Points, path: Path) -> None:
    """Measured forgetting against each figure that predicts it, over all runs, with rank correlations."""
    pyplot = pyplot_module()
    figure, axes = pyplot.subplots(1, len(PREDICTORS), figsize=(3.2 * len(PREDICTORS), 3.4), squeeze=False, sharey=True)
    for axis, (key, name) in zip(axes[0], PREDICTORS.items(), strict=True):
        for pair, found in finished(points).items():
            moved = [each for each in found if each[key] > 0]
            axis.plot(
                [e[key] for e in moved], [e["before"] - e["old"] for e in moved], "o", ms=4, alpha=0.7, label=pair
            )
        axis.set(xscale="log", xlabel=name, title=f"rank correlation {overall(points, key):.2f}")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("forgetting: loss of accuracy")
    axes[0][0].legend(fontsize=7)
    figure.tight_layout()
    save(figure, path)


def correlations(points: Points, key: str) -> dict[str, float]:
    """Spearman's rank correlation of a predictor with measured forgetting, for each pair."""
    return {
        pair: spearman([each[key] for each in found], [each["before"] - each["old"] for each in found])
        for pair, found in finished(points).items()
    }


def overall(points: Points, key: str) -> float:
    """The same over all pairs: the mean of theirs, each weighed by its runs, for forgetting differs between pairs."""
    found = finished(points)
    total = sum(map(len, found.values()))
    return sum(len(found[pair]) * value for pair, value in correlations(points, key).items()) / total


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's rank correlation; ties share their mean rank. NaN if one of the two is constant."""
    from scipy.stats import spearmanr

    if len(set(first)) == 1 or len(set(second)) == 1:
        return math.nan
    return float(spearmanr(first, second).statistic)


def table(points: Points) -> str:
    """The points as a Markdown table: percent on the old and on the new task."""
    pairs = list(points)
    rows: dict[str, dict[str, str]] = {}
    for pair, found in points.items():
        for each in sorted(found, key=_order):
            known = each["curve"] in _LINES
            label = each["curve"] + (f", λ = {each['strength']:g}" if known else "")
            cell = "diverged" if "diverged" in each else f"{100 * each['old']:.1f} / {100 * each['new']:.1f}"
            if not known and each.get("strength") is not None:
                cell += f" (λ {each['strength']:.2g})"
            rows.setdefault(label, {})[pair] = cell
    lines = [f"| old / new, % | {' | '.join(pairs)} |", "|---" * (len(pairs) + 1) + "|"]
    lines += [f"| {label} | {' | '.join(cells.get(pair, '–') for pair in pairs)} |" for label, cells in rows.items()]
    return "\n".join(lines)


def _order(point: Mapping[str, Any]) -> tuple[int, float]:
    names = ["fine-tuning", "frozen backbone", *_LINES, *_SINGLE]
    return names.index(point["curve"]), point.get("strength") or 0.0


def pyplot_module() -> Any:
    """`matplotlib.pyplot`, set so that it needs no display and the same figure has the same bytes.

    Raises:
        ForgetlessError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ForgetlessError("figures need matplotlib: pip install 'forgetless[figures]'.") from error
    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "forgetless"
    matplotlib.rcParams["svg.fonttype"] = "none"  # text as text: a quarter of the size, and it can be searched
    from matplotlib import pyplot

    return pyplot


def save(figure: Any, path: Path) -> None:
    """Write a figure as SVG, whole or not at all, and close it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})
    pyplot_module().close(figure)
