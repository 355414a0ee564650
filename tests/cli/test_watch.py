"""`forgetless watch`, which shows a run and leaves it alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli.conftest import Command
from forgetless.files.lock import NAME as LOCK
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
    shown = forgetless("watch", "out", "--once").stdout
    assert "letters: 62%, stopped" in shown
    assert "75.0" in shown
    assert forgetless("watch", "out").stdout == (
        "mas, seed 0: done, average 75.0, forgetting 20.0\n"
        "finetune, seed 0: task 1 of 2, a, epoch 2 of 4, loss 0.5\n"
        "letters: 62%, stopped; continue it with --resume\n"
    )
    run.log("done", method="finetune", seed=0, order=0, accuracy=[[0.9, None], [0.2, 0.8]])
    assert "letters: 100%, done" in forgetless("watch", "out", "--once").stdout
    assert before.keys() == {path for path in Path("out").rglob("*") if path.is_file()}


def test_no_run(refused: Callable[..., None]) -> None:
    Path("empty").mkdir()
    refused("empty is no run directory: it has no config.json; name an --out of a run.", "watch", "empty")


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `forgetless watch` as a process of its own, which writes into a pipe."""
    started: list[subprocess.Popen[str]] = []

    def start(folder: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "forgetless", "watch", str(folder)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command, text=True, cwd=tmp_path, **pipes))  # type: ignore[call-overload]
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_into_a_pipe_every_change_is_a_line(tmp_path: Path, watching: Callable[..., subprocess.Popen[str]]) -> None:
    run = RunLog(tmp_path / "out")
    (run.folder / LOCK).write_text(str(os.getpid()))  # the run is alive
    run.log("start", runs=[["mas", 0, 0], ["finetune", 0, 0]])
    run.train("mas", "a", 1)
    process = watching(run.folder)
    assert process.stdout is not None
    assert process.stdout.readline() == "mas, seed 0: task 1 of 2, a, epoch 1 of 4, loss 0.5\n"
    run.train("mas", "b", 3, average=0.9, forgetting=0.1)
    assert process.stdout.readline() == (
        "mas, seed 0: task 2 of 2, b, epoch 3 of 4, loss 0.5, average 90.0, forgetting 10.0\n"
    )
    run.log("done", method="mas", seed=0, order=0, accuracy=[[0.9, None], [0.7, 0.8]])
    (run.folder / LOCK).unlink()
    out, error = process.communicate(timeout=60)
    assert out == (
        "mas, seed 0: done, average 75.0, forgetting 20.0\nletters: 50%, stopped; continue it with --resume\n"
    )
    assert (process.returncode, error) == (0, "")


def test_it_ends_when_nobody_reads(tmp_path: Path, watching: Callable[..., subprocess.Popen[str]]) -> None:
    run = RunLog(tmp_path / "out")
    (run.folder / LOCK).write_text(str(os.getpid()))
    run.log("start", runs=[["mas", 0, 0]])
    run.train("mas", "a", 1)
    process = watching(run.folder)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline()
    process.stdout.close()  # and nothing more happens in the run
    assert (process.wait(timeout=60), process.stderr.read()) == (141, "")
