"""What the tests of `forgetless learn` share: what it found, and Ctrl-C at a step."""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from forgetless.cli.parts import learning


def found(place: str) -> dict[str, Any]:
    return json.loads(Path(place, "learned.json").read_text())  # type: ignore[no-any-return]


def watch(monkeypatch: pytest.MonkeyPatch, stop_at: int | None = None) -> list[int]:
    """The steps that are told of, with Ctrl-C after one of them."""
    steps: list[int] = []

    @contextlib.contextmanager
    def told() -> Iterator[Callable[[str, int, int], None]]:
        def tell(phase: str, done: int, whole: int) -> None:
            if phase == "learning" and done:
                steps.append(done)
                if done == stop_at:
                    raise KeyboardInterrupt

        yield tell

    monkeypatch.setattr(learning, "told", told)
    return steps


def same_files(left: str, right: str, method: str = "mas") -> None:
    """All but the summary, which holds seconds and paths."""
    names = [sorted(path.name for path in Path(place).iterdir()) for place in (left, right)]
    assert names[0] == names[1]
    for name in set(names[0]) - {"learned.json"}:
        assert Path(left, name).read_bytes() == Path(right, name).read_bytes(), name
    assert {k: v for k, v in found(left)["after"][method].items() if k != "seconds"} == {
        k: v for k, v in found(right)["after"][method].items() if k != "seconds"
    }


def logged(place: str) -> list[tuple[str, int, str, float]]:
    """What `--log csv` has written: run, step, key and value of every figure."""
    with Path(place, "logs", "csv", "metrics.csv").open(encoding="utf-8", newline="") as file:
        return [(r["run"], int(r["step"]), r["key"], float(r["value"])) for r in csv.DictReader(file)]


def scalars(place: str) -> list[tuple[str, int, str, float]]:
    """The same of `--log tensorboard`, sorted, each figure as often as it was written."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    return sorted(
        (path.parent.name, event.step, value.tag, value.tensor.float_val[0])
        for path in Path(place, "logs", "tensorboard").glob("*/events.*")
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
    )
