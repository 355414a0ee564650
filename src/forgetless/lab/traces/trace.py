"""The trace of a run on disk: a JSON object a line, appended as the run goes, so that a killed run loses none.

A run that goes on from a checkpoint repeats some lines with the same values; of two lines about the same moment the
later one counts. A line that is not whole (the process was killed while it wrote) is left out.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.lab.kept import stem
from forgetless.lab.traces.album import Album, read_albums

FOLDER = "traces"
Share = Annotated[float, files.Between(0, 1)]
Amount = Annotated[float, files.Between(0, 1e30)]
Number = Annotated[int, files.Between(1, 2**53)]


@dataclass(frozen=True)
class Moved:
    """How far the weights are from those at the start of the stream.

    Attributes:
        at: how many tasks are learned, the present one in part.
        drift: `‖θ − θ₀‖ / ‖θ₀‖` over all layers that were there at the start.
        strength: λ of the protection then; None where nothing is anchored.
    """

    at: Amount
    drift: Amount
    strength: Amount | None = None


@dataclass(frozen=True)
class Layer:
    """A layer at the end of a task.

    Attributes:
        name: the module's.
        weights: how many it has.
        drift: `‖θ − θ₀‖ / ‖θ₀‖`; None for a layer that was not there at the start.
        held: the share of its weights that the method held while the task was learned: frozen, or brought back by the
            pulls of the whole task, `Σ_t s_t > 1`; None where that cannot be told.
        importance: the mean of Ω over its weights; None where nothing is anchored.
        channels: the mean of Ω of each output channel, after the last task.
    """

    name: str
    weights: Number
    drift: Amount | None = None
    held: Share | None = None
    importance: Amount | None = None
    channels: list[Amount] = field(default_factory=list)


@dataclass(frozen=True)
class Answer:
    """What the network says of a test sample: the class, and the probability that it gives to it."""

    task: str
    sample: Annotated[int, files.Between(0, 10**6)]
    answer: str
    sure: Share


@dataclass(frozen=True)
class TaskEnd:
    """What was seen when a task was learned.

    Attributes:
        task: its number, from 1.
        layers: all that tasks share.
        answers: about the samples of this task, or after the last one about those of all.
    """

    task: Number
    layers: list[Layer]
    answers: list[Answer]


@dataclass(frozen=True)
class Trace:
    """One run's.

    Attributes:
        method: whose.
        seed: of the run.
        order: the number of the order of tasks.
        moved: by `at`.
        ends: by task.
    """

    method: str
    seed: int
    order: int
    moved: tuple[Moved, ...]
    ends: tuple[TaskEnd, ...]


@dataclass(frozen=True)
class Traces:
    """Those of a run directory: the runs, and the test samples that they were asked about."""

    runs: tuple[Trace, ...] = ()
    albums: tuple[Album, ...] = ()

    def first(self) -> dict[str, Trace]:
        """Method → the trace of its first seed in the experiment's own order of tasks."""
        found: dict[str, Trace] = {}
        for each in sorted((run for run in self.runs if not run.order), key=lambda run: run.seed):
            if each.ends:
                found.setdefault(each.method, each)
        return found


def append(path: Path, line: Moved | TaskEnd) -> None:
    """Add a line to a trace; the file and its folder are made if they are not there.

    Raises:
        ForgetlessError: the system does not let it be written.
    """
    with files.told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(dataclasses.asdict(line), allow_nan=False) + "\n")


def read(folder: Path, runs: list[Mapping[str, Any]]) -> Traces:
    """The traces of a run directory; those that are missing are left out, for they are by-products.

    Args:
        folder: the run directory.
        runs: the runs in its results.
    """
    found = (_read(folder / FOLDER, run) for run in runs)
    return Traces(tuple(each for each in found if each is not None), read_albums(folder / FOLDER))


def latest(folder: Path, method: str, seed: int, order: int = 0) -> Moved | None:
    """Where the weights of a run were seen last; None where that is not known."""
    found = _read(folder / FOLDER, {"method": method, "seed": seed, "order": order})
    return found.moved[-1] if found is not None and found.moved else None


def _read(folder: Path, run: Mapping[str, Any]) -> Trace | None:
    path = folder / f"{stem(run['method'], run['seed'], run.get('order', 0))}.jsonl"
    moved: dict[float, Moved] = {}
    ends: dict[int, TaskEnd] = {}
    try:
        # In results of any origin a method's name may hold a "/", or be too long for a file.
        if path.parent != folder or not path.is_file():
            return None
        lines = files.read_bytes(path).decode("utf-8", "replace").splitlines()
    except (ForgetlessError, OSError):
        return None
    for text in lines:
        try:
            value = files.parse_json(text, path)
            if isinstance(value, dict) and "at" in value:
                line: Moved = files.decoded(value, Moved, path)
                moved[line.at] = line
            else:
                end: TaskEnd = files.decoded(value, TaskEnd, path)
                ends[end.task] = end
        except ForgetlessError:
            continue
    return Trace(
        run["method"],
        run["seed"],
        run.get("order", 0),
        tuple(moved[at] for at in sorted(moved)),
        tuple(ends[task] for task in sorted(ends)),
    )
