"""The sections of the page of the eight tasks that come from studies of their own, as lines of Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from forgetless.lab.published.mas_2018 import TITLES
from forgetless.lab.results import percent, summarize


def keeping(study: Mapping[str, Any] | None) -> Iterator[str]:
    """What protection costs: `study` is what `studies.plasticity` found; None if it has not been run."""
    yield "## What protection costs"
    yield ""
    if study is None:
        yield "Not run yet: `python -m studies.plasticity --data DATA`."
        yield ""
        return
    summary = summarize(study)
    yield (
        f"MAS, {summary.runs}: two other ways to combine the Ω of several tasks, and λ controlled by a target for the "
        "answers to pictures of every old task. `python -m studies.plasticity --data DATA` makes the runs."
    )
    yield ""
    yield f"| MAS | average | forgetting | when learned | {summary.tasks[-1]}, the last |"
    yield "|---|---|---|---|---|"
    for each in summary.methods:
        shown = (each.average, each.forgetting, each.average_learned, each.now[-1])
        yield f"| {each.label} | {' | '.join(map(percent, shown))} |"
    yield ""
    yield (
        "The share of weights that the pull freezes (s > 1: it undoes more than half of a step), in percent, before "
        "the second task and before the last; of a block, the mean over its layers."
    )
    yield ""
    yield f"| | {' | '.join(each.label for each in summary.methods)} |"
    yield "|---" * (1 + len(summary.methods)) + "|"
    held = [
        [
            _blocks(run["frozen fraction"][place] for run in study["runs"] if run["method"] == each.method)
            for place in (1, -1)
        ]
        for each in summary.methods
    ]
    for block in held[0][0]:
        cells = (f"{100 * before[block]:.0f} → {100 * last[block]:.0f}" for before, last in held)
        yield f"| {'**all weights**' if block == 'all' else block} | {' | '.join(cells)} |"
    yield ""


def _blocks(frozen: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The mean over seeds and the layers of each block of the backbone ("backbone.fire2.squeeze1x1": of fire2)."""
    shares: dict[str, list[float]] = {}
    for layers in frozen:
        for name, share in layers.items():
            shares.setdefault(name.removeprefix("backbone.").partition(".")[0], []).append(share)
    return {block: statistics.fmean(each) for block, each in shares.items()}


def memory(measured: Mapping[str, Any] | None) -> Iterator[str]:
    """Memory over tasks: `measured` is what `studies.eight_memory` wrote; None if it has not been run."""
    yield "## Memory over tasks"
    yield ""
    if measured is None:
        yield "Not measured yet: `python -m studies.eight_memory --data DATA`."
        return
    yield (
        f"Megabytes that a method keeps after each task, besides the network ({measured['network'] / 1e6:.2f}); joint "
        "training keeps the data. `python -m studies.eight_memory --data DATA` measures them; "
        "`python -m studies.eight_page` draws:"
    )
    yield ""
    yield "![Memory over tasks](figures/eight-tasks-memory.svg)"
    yield ""
    yield f"| method | {' | '.join(measured['tasks'])} |"
    yield "|---" * (1 + len(measured["tasks"])) + "|"
    for name, sizes in sorted(measured["bytes"].items(), key=lambda each: each[1][-1]):
        yield f"| {TITLES.get(name, name)} | {' | '.join(f'{size / 1e6:.2f}' for size in sizes)} |"
