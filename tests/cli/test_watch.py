"""`forgetless watch`, which shows a run and leaves it alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.conftest import Command
from run_log import RunLog


def test_a_run_that_is_done_and_one_that_was_stopped(forgetless: Command) -> None:
    run = RunLog(Path("out"))
    run.log("start", runs=[["mas", 0, 0], ["finetune", 0, 0]])
    run.log("done", method="mas", seed=0, order=0, accuracy=[[0.9, None], [0.7, 0.8]])
    run.train("finetune", "a", 2)
    before = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}
    found = json.loads(forgetless("watch", "out", "--json").stdout)
    assert found["in use"] is False
    (directory,) = found["directories"]
    assert directory["share"] == pytest.approx(0.625)
    assert [each["stage"] for each in directory["runs"]] == ["done", "running"]
    shown = forgetless("watch", "out").stdout
    assert "letters: 62%, stopped" in shown
    assert "75.0" in shown
    run.log("done", method="finetune", seed=0, order=0, accuracy=[[0.9, None], [0.2, 0.8]])
    assert "letters: 100%, done" in forgetless("watch", "out", "--once").stdout
    assert before.keys() == {path for path in Path("out").rglob("*") if path.is_file()}


def test_no_run(refused: Callable[..., None]) -> None:
    Path("empty").mkdir()
    refused("empty is no run directory: it has no config.json; name an --out of a run.", "watch", "empty")
