"""Traces of runs that never were, for pages."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from forgetless.lab.traces import Album, Answer, Layer, Moved, TaskEnd, Trace, Traces


def traces(
    tasks: Sequence[str],
    methods: Sequence[str],
    layers: Sequence[str] = ("backbone.0", "backbone.2"),
    classes: Sequence[str] = ("zero", "one"),
    side: int = 28,
    each: int = 2,
    texts: Sequence[str] = (),
) -> Traces:
    """A trace of every method with seed 0, and some pictures of every task, or these texts."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(256, (each, 3, side, side), generator=generator, dtype=torch.uint8)
    labels = tuple(classes[number % len(classes)] for number in range(each))
    shown = {"texts": tuple(texts[:each])} if texts else {"pictures": pictures}
    albums = tuple(Album(task, labels, **shown) for task in tasks)  # type: ignore[arg-type]
    return Traces(tuple(_trace(method, tasks, layers, classes, each) for method in methods), albums)


def _trace(method: str, tasks: Sequence[str], layers: Sequence[str], classes: Sequence[str], each: int) -> Trace:
    moved = tuple(Moved(at / 4, at / 10) for at in range(1, 4 * len(tasks) + 1))
    protects = method != "finetune"
    held = [
        Layer(
            name,
            1000 + number,
            drift=0.1 * number,
            held=0.25 if protects else 0.0,
            importance=0.5 if protects else None,
            channels=[0.1, 0.4, 0.2] if protects else [],
        )
        for number, name in enumerate(layers)
    ]
    ends = []
    for number, task in enumerate(tasks, 1):
        last = number == len(tasks)
        asked = tasks if last else [task]
        wrong = classes[0] if last else classes[-1]
        answers = [Answer(name, picture, wrong, 0.75) for name in asked for picture in range(each)]
        ends.append(TaskEnd(number, held, answers))
    return Trace(method, 0, 0, moved, tuple(ends))
