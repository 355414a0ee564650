"""A run directory from outside, while its log grows."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from forgetless.errors import ForgetlessError
from forgetless.lab.running.experiment import Experiment
from forgetless.lab.running.followed import Follower, directories, in_use
from forgetless.lab.running.run import run as run_small
from forgetless.lab.traces.trace import Moved, append
from forgetless.learn.position import Progress
from forgetless.learn.recipe import Recipe
from run_log import RunLog
from streams import network, stream


def test_it_grows(tmp_path: Path) -> None:
    run = RunLog(tmp_path / "run")
    watched = Follower(run.folder)
    watched.update()
    assert watched.jobs == {}
    run.log("start", runs=[["mas", 0, 0], ["finetune", 0, 0]])
    watched.update()
    assert [each.stage for each in watched.jobs.values()] == ["waiting", "waiting"]
    assert watched.left() is None
    run.train("mas", "a", 2)
    watched.update()
    mas = watched.jobs["mas", 0, 0]
    assert (mas.stage, mas.task, mas.epoch, mas.loss) == ("running", 1, 2, 0.5)
    assert watched.share == pytest.approx(0.125)
    assert watched.left() == pytest.approx(60 * 7)  # an eighth took a minute
    run.train("mas", "b", 4)
    watched.update()
    assert (mas.task, mas.share) == (2, 1.0)
    run.log("done", method="mas", seed=0, order=0, accuracy=[[0.9, None], [0.7, 0.8]])
    watched.update()
    assert (mas.stage, mas.average) == ("done", 0.75)
    assert mas.forgetting == pytest.approx(0.2)
    assert watched.share == pytest.approx(0.5)
    assert watched.facts()["runs"][0]["job"] == "mas, seed 0"


def test_accuracy_drift_and_strength_so_far(tmp_path: Path) -> None:
    run = RunLog(tmp_path / "run")
    watched = Follower(run.folder)
    run.log("start", runs=[["mas", 0, 0]])
    run.train("mas", "a", 1)
    watched.update()
    mas = watched.jobs["mas", 0, 0]
    assert (mas.average, mas.drift, mas.strength) == (None, None, None)
    trace = run.folder / "traces" / "mas-0.jsonl"
    append(trace, Moved(0.5, 0.25))
    watched.update()
    assert (mas.drift, mas.strength) == (0.25, None)
    run.train("mas", "b", 1, average=0.9)
    append(trace, Moved(1.5, 0.5, strength=2.0))
    watched.update()
    assert (mas.average, mas.forgetting, mas.drift, mas.strength) == (0.9, None, 0.5, 2.0)
    run.train("mas", "b", 2, average=float("nan"), forgetting="much")
    run.log("done", method="mas", seed=0, order=0, accuracy=[[0.9, None], [0.7, 0.8]], strength=3.0)
    append(trace, Moved(2, 0.75, strength=2.5))
    watched.update()
    assert (mas.average, mas.drift, mas.strength) == (0.75, 0.75, 3.0)
    assert watched.facts()["runs"][0]["drift"] == 0.75


def test_a_real_run_tells_them_while_it_goes(tmp_path: Path) -> None:
    seen: list[tuple[int, float | None, float | None, float | None]] = []

    def look(job: object, progress: Progress) -> None:
        if progress.phase == "train" and progress.step == progress.steps:
            watched = Follower(tmp_path / "run")
            watched.update()
            (mas,) = watched.jobs.values()
            assert mas.drift is not None
            assert mas.drift > 0
            seen.append((mas.task, mas.average, mas.forgetting, mas.strength))

    small = Experiment("small", stream(3), network, Recipe(lr=0.1, epochs=2, batch_size=8))
    (found,) = run_small(small, ["mas"], [0], tmp_path / "run", on_progress=look)["runs"]
    r = found["accuracy"]
    assert [(task, forgetting) for task, _, forgetting, _ in seen[:2]] == [(1, None), (2, None)]
    assert [average for _, average, _, _ in seen] == [None, r[0][0], pytest.approx((r[1][0] + r[1][1]) / 2)]
    assert seen[2][2] == pytest.approx(r[0][0] - r[1][0])
    assert [each[3] for each in seen[1:]] == [found["strength"]] * 2


def test_a_line_that_is_not_whole_is_read_when_it_is(tmp_path: Path) -> None:
    run = RunLog(tmp_path / "run")
    run.log("start", runs=[["mas", 0, 0]])
    log = run.folder / "log.jsonl"
    whole = json.dumps({"time": "2026-01-01T10:01:00Z", "event": "train", "method": "mas", "seed": 0, "task": "a"})
    watched = Follower(run.folder)
    with log.open("a") as file:
        file.write(whole[:30])
    watched.update()
    assert watched.jobs["mas", 0, 0].stage == "waiting"
    with log.open("a") as file:
        file.write(whole[30:] + "\nnot JSON\n")
    watched.update()
    assert watched.jobs["mas", 0, 0].stage == "running"


@pytest.mark.parametrize(
    "line",
    [
        {"event": "start", "runs": 5},
        {"event": "start", "runs": [["mas"], [[], 0, 0]]},
        {"event": "train", "method": "mas", "seed": [], "order": {}},
        {"event": "train", "method": "mas", "epoch": float("nan"), "loss": float("inf")},
        {"event": "train", "method": "mas", "epoch": "x", "loss": [1]},
        {"event": "train", "method": "mas", "epoch": 10**400, "loss": 10**400, "average": -(10**400)},
        {"event": "done", "method": "mas", "accuracy": [[float("nan"), 1], {}]},
        {"event": "done", "method": "mas", "accuracy": {"a": 1}},
    ],
)
@pytest.mark.parametrize("tasks", ["3", "[]", '["a"]'])
def test_a_line_of_somebody_else_is_no_reason_to_end(line: dict[str, object], tasks: str, tmp_path: Path) -> None:
    run = RunLog(tmp_path / "run")
    (run.folder / "log.jsonl").write_text("[" * 100_000 + "\n" + json.dumps(line) + "\n")
    (run.folder / "config.json").write_text(f'{{"tasks": {tasks}, "recipe": {{"epochs": "many"}}}}')
    watched = Follower(run.folder)
    watched.update()
    json.dumps(watched.facts(), allow_nan=False)
    run.train("si", "a", 1)
    watched.update()
    assert watched.jobs["si", 0, 0].epoch == 1


def test_what_writes_there(tmp_path: Path) -> None:
    run = RunLog(tmp_path / "run")
    assert not in_use(run.folder)
    (run.folder / "lock").write_text(f"{os.getpid()}\n")
    assert in_use(run.folder)
    (run.folder / "lock").write_text("4194305\n")  # above Linux's largest number of a process
    assert not in_use(run.folder)


def test_where_runs_are(tmp_path: Path) -> None:
    for name in ("one", "two"):
        RunLog(tmp_path / name)
    assert directories(tmp_path / "one") == [tmp_path / "one"]
    assert directories(tmp_path) == [tmp_path / "one", tmp_path / "two"]
    (tmp_path / "none").mkdir()
    with pytest.raises(ForgetlessError, match=r"none is no run directory: it has no config.json"):
        directories(tmp_path / "none")
