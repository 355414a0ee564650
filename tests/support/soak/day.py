"""A day of training by a simulated clock: the log and the checkpoints stay small, and so does the process."""

from __future__ import annotations

import tempfile
import time
import unittest.mock
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from forgetless.lab.running.experiment import Experiment
from forgetless.lab.running.jobs import Job
from forgetless.lab.running.run import run as run_experiment
from forgetless.learn.position import Progress
from forgetless.learn.recipe import Recipe
from soak.parts import RESULTS, finish, save
from soak.stream import ALLOWED, peak
from streams import network, stream

FILE = RESULTS / "day.json"
SECONDS = 5  # that a step takes by the simulated clock; there is a checkpoint every 30
STEPS, TASKS = 12, 3  # in an epoch, which is then a minute
MOST_BYTES = 1 << 20  # of the log, in a day


def run(hours: int, file: Path = FILE) -> bool:
    """So many hours. Whether log, checkpoints and memory have grown by no more than is allowed."""
    torch.set_num_threads(1)
    epochs = hours * 3600 // (SECONDS * STEPS * TASKS)
    experiment = Experiment("day", stream(TASKS), network, Recipe(lr=0.01, epochs=epochs, batch_size=48 // STEPS))
    found: list[dict[str, int]] = []
    away = 0.0
    monotonic = time.monotonic

    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "out"

        def step(job: Job, progress: Progress) -> None:
            nonlocal away
            if progress.phase == "train":
                away += SECONDS
                if away >= 3600 * (len(found) + 1):
                    found.append(_sizes(out))

        with unittest.mock.patch("time.monotonic", side_effect=lambda: monotonic() + away):
            run_experiment(experiment, ["mas"], [0], out, on_progress=step)
        end = _sizes(out)
    results = {
        "hours": hours,
        "steps": round(away / SECONDS),
        "first_hour": found[0],
        "last_hour": found[-1],
        "end": end,
    }
    wrong = _wrong(found, hours)
    save(file, {**results, "wrong": wrong})
    return finish({**results, "wrong": wrong})


def _sizes(out: Path) -> dict[str, int]:
    """Bytes of the log, of the traces and of the checkpoints; how many files there are, and what the process holds."""
    files = [path for path in out.rglob("*") if path.is_file()]
    inside = {name: [path for path in files if path.parent.name == name] for name in ("traces", "checkpoints")}
    sizes = {f"{name}_bytes": sum(path.stat().st_size for path in those) for name, those in inside.items()}
    return {"log_bytes": (out / "log.jsonl").stat().st_size, **sizes, "files": len(files), "peak_bytes": peak()}


def _wrong(found: list[dict[str, int]], hours: int) -> list[dict[str, Any]]:
    if len(found) < hours - 1:
        return [{"hours": len(found)}]
    first, last = found[1], found[-1]
    most: Mapping[str, int] = {
        "log_bytes": MOST_BYTES * hours // 24,
        "traces_bytes": MOST_BYTES * hours // 24,
        "checkpoints_bytes": first["checkpoints_bytes"] * 2,  # another task's head and what it is anchored to
        "files": first["files"],
        "peak_bytes": first["peak_bytes"] + ALLOWED,
    }
    return [{"what": name, "is": last[name], "most": limit} for name, limit in most.items() if last[name] > limit]
