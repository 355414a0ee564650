"""The figures of the eight tasks: the paper's figure 5, the sensitivity to λ, and memory over tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forgetless.lab.published.mas_2018 import TITLES
from forgetless.lab.results import MethodSummary, Summary
from studies.figures import pyplot_module, save

#: Method → color; the others are gray.
_COLORS = {
    "mas": "#0072b2",
    "local-mas": "#56b4e9",
    "finetune": "#000000",
    "ewc": "#009e73",
    "si": "#cc79a7",
    "lwf": "#e69f00",
    "ebll": "#d55e00",
    "imm-mean": "#b0a000",
    "imm-mode": "#806000",
    "joint": "#888888",
    "frozen": "#bbbbbb",
}


def sequence(summary: Summary, path: Path) -> None:
    """Figure 5: the mean over the tasks so far, after each task; every task's accuracy after the last one."""
    pyplot = pyplot_module()
    figure, (upper, lower) = pyplot.subplots(2, 1, figsize=(9, 7))
    places = range(len(summary.tasks))
    for method in summary.methods:
        means = [None if each is None else 100 * each.mean for each in method.so_far]
        known = [(place, mean) for place, mean in zip(places, means, strict=True) if mean is not None]
        upper.plot(*zip(*known, strict=True), "o-", ms=3, lw=1.2, c=_color(method), label=short(method.method))
    upper.set(ylabel="mean accuracy on the tasks so far, %", xticks=list(places), xticklabels=summary.tasks)
    width = 0.8 / len(summary.methods)
    for number, method in enumerate(summary.methods):
        left = [*method.now, method.average]
        spots = [place + (number - (len(summary.methods) - 1) / 2) * width for place in range(len(left))]
        heights = [0.0 if each is None else 100 * each.mean for each in left]
        lower.bar(spots, heights, width, color=_color(method))
    lower.set(ylabel="accuracy after the last task, %", xticks=range(len(summary.tasks) + 1))
    lower.set_xticklabels([*summary.tasks, "average"])
    for axis in (upper, lower):
        axis.grid(alpha=0.3, axis="y")
    figure.legend(*upper.get_legend_handles_labels(), loc="lower center", ncol=6, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    save(figure, path)


def sensitivity(curves: Mapping[str, Mapping[float, MethodSummary]], path: Path) -> None:
    """Average accuracy at the end, and when learned, over λ: a panel per method."""
    pyplot = pyplot_module()
    columns = min(len(curves), 4)
    rows = math.ceil(len(curves) / columns)
    size = (1 + 2.6 * columns, 0.4 + 3.0 * rows)
    figure, axes = pyplot.subplots(rows, columns, figsize=size, sharey=True, squeeze=False)
    for axis in axes.flat[len(curves) :]:
        axis.set_visible(False)
    for axis, (method, curve) in zip(axes.flat, curves.items(), strict=False):
        lines = {
            "average accuracy at the end": ("o-", [each.average for each in curve.values()]),
            "accuracy when learned": ("s--", [each.average_learned for each in curve.values()]),
        }
        for label, (style, estimates) in lines.items():
            known = [
                (λ, 100 * each.mean, 100 * (each.sd or 0)) for λ, each in zip(curve, estimates, strict=True) if each
            ]
            xs, ys, errors = zip(*known, strict=True)
            axis.errorbar(xs, ys, errors, fmt=style, ms=4, lw=1.2, c=_COLORS[method], label=label)
        axis.set(xscale="log", xlabel="λ", title=TITLES[method])
        axis.grid(alpha=0.3)
    for axis in axes[:, 0]:
        axis.set_ylabel("%")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="lower center", ncol=2, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.3 / size[1], 1, 1))
    save(figure, path)


def memory(measured: Mapping[str, Any], path: Path) -> None:
    """What a method keeps besides the network, after each task; methods that keep the same share a line."""
    pyplot = pyplot_module()
    figure, axis = pyplot.subplots(figsize=(8, 3.6))
    together: dict[tuple[int, ...], list[str]] = {}
    for name, sizes in measured["bytes"].items():
        together.setdefault(tuple(sizes), []).append(name)
    for sizes, names in sorted(together.items(), key=lambda each: -each[0][-1]):
        titles = " / ".join(short(name) for name in names)
        axis.plot([size / 1e6 for size in sizes], "o-", ms=3, lw=1.2, c=_COLORS.get(names[-1], "#999999"), label=titles)
    axis.set(ylabel="kept besides the network, MB", xticks=range(len(measured["tasks"])))
    axis.set_xticklabels(measured["tasks"])
    axis.axhline(measured["network"] / 1e6, ls=":", lw=1, c="#444444", label="the network itself")
    axis.grid(alpha=0.3, axis="y")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8, frameon=False)
    figure.tight_layout()
    save(figure, path)


def short(name: str) -> str:
    """The title of a method without what is said of it in brackets."""
    return TITLES.get(name, name).partition(" (")[0]


def _color(method: MethodSummary) -> str:
    return _COLORS.get(method.method, "#999999")
