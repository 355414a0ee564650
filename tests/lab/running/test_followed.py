"""A run directory from outside, while its log grows."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from forgetless.errors import ForgetlessError
from forgetless.lab.running.followed import Follower, directories, in_use
from run_log import RunLog


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
