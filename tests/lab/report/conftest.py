"""Results to report on, as `results.json` holds them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

Results = dict[str, Any]


def build(
    tasks: Sequence[str] = ("zero or one", "two or three", "four or five"),
    methods: Sequence[str] = ("finetune", "frozen", "mas"),
    seeds: int = 1,
    experiment: str = "demo",
) -> Results:
    """Results in which every task starts at 90 % and loses a method's own share with each task after it."""
    lost = {"finetune": 0.2, "frozen": 0.0}
    runs = []
    for method in methods:
        for seed in range(seeds):
            start, step = 0.9 + 0.01 * seed, lost.get(method, 0.01)
            rows = [[start - step * (i - j) if j <= i else None for j in range(len(tasks))] for i in range(len(tasks))]
            strength = 1.0 if method == "mas" else None
            runs.append(
                {"method": method, "seed": seed, "strength": strength, "accuracy": rows, "seconds": {"train": 2.5}}
            )
    environment = {"torch": "2.14.1", "threads": 2}
    return {"experiment": experiment, "tasks": list(tasks), "runs": runs, "environment": environment}


@pytest.fixture(scope="session")
def results() -> Callable[..., Results]:
    return build
