"""A page of pictures with their most similar facts, when each was learned and now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from forgetless import files
from forgetless.lab.datasets.reading.fact import shown
from forgetless.lab.facts.kept import Header, read
from forgetless.lab.report.picture import data_url
from forgetless.lab.report.template import rendered


@dataclass(frozen=True)
class Shown:
    """One picture under one method.

    Attributes:
        fact: what it shows.
        task: the number of the task that has the fact, from 1.
        then: its most similar facts when that task was learned, each with its similarity and whether it is right.
        now: the same after the last task.
    """

    fact: str
    task: int
    then: list[tuple[str, float, bool]]
    now: list[tuple[str, float, bool]]


def retrieval(folder: Path) -> None:
    """Write `retrieval.html` in a run directory of facts, from what it keeps of each method's first run.

    The page is whole in itself: no script, no font, no request. Without Pillow it has no pictures.

    Raises:
        ForgetlessError: a file is damaged.
    """
    pictures: list[str] = []
    methods: dict[str, list[Shown]] = {}
    found = [read(path) for path in sorted((folder / "kept").glob("*.safetensors"))]
    for arrays, header in sorted(found, key=lambda each: each[1].run.seed):
        # Nothing was looked at where strengths are found for every task, and columns mean other tasks in other orders.
        if header.run.method in methods or header.run.order or "top_facts" not in arrays:
            continue
        methods[header.run.method] = list(_shown(arrays, header))
        pictures = pictures or [data_url(torch.from_numpy(each)) for each in arrays["thumbnails"]]
    html = rendered(Path(__file__).with_name("retrieval.html"), pictures=pictures, methods=methods)
    files.write_text(folder / "retrieval.html", html)


def _shown(arrays: Mapping[str, np.ndarray], header: Header) -> Iterator[Shown]:
    labels = arrays["labels"][arrays["shown"]].tolist()
    of_fact = {fact: number for number, task in enumerate(header.tasks) for fact in task.facts}
    found, similar = arrays["top_facts"].tolist(), arrays["top_similarities"].tolist()
    names = list(map(shown, header.facts))
    for row, label in enumerate(labels):
        task = of_fact[label]
        then, now = (
            [(names[fact], value, fact == label) for fact, value in zip(found[t][row], similar[t][row], strict=True)]
            for t in (task, len(found) - 1)
        )
        yield Shown(names[label], task + 1, then, now)
