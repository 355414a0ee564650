"""Two processes, one run directory: the second gets a sentence, and no result of either is lost."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from forgetless.errors import ForgetlessError
from forgetless.files.lock import NAME, Lock, locked
from forgetless.lab import results
from forgetless.lab.running.directory import RunDirectory
from forgetless.lab.running.experiment import Experiment
from forgetless.lab.running.jobs import Job
from forgetless.lab.running.run import run
from forgetless.learn.position import Progress
from forgetless.learn.recipe import Recipe
from streams import network, stream

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

EXPERIMENT = Experiment("small", stream(2), network, Recipe(lr=0.1, epochs=2, batch_size=24))
HOLD = """
import sys
from pathlib import Path
from forgetless.files.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Any:
    """Another process that holds the lock of `tmp_path / "out"` until its standard input is closed."""
    words = [sys.executable, "-c", HOLD, str(tmp_path / "out")]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        pipe.close()


def test_a_second_process_is_refused_in_a_sentence(holder: Any, tmp_path: Path) -> None:
    with pytest.raises(ForgetlessError) as caught:
        run(EXPERIMENT, ["mas"], [0], tmp_path / "out", resume=True)
    assert str(caught.value) == (
        f"{tmp_path / 'out'} is in use by another process ({holder.pid}); wait until it ends, or choose another --out."
    )
    assert [path.name for path in (tmp_path / "out").iterdir()] == [NAME]


def test_what_a_killed_process_leaves_behind_keeps_nobody_out(holder: Any, tmp_path: Path) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "out" / NAME).exists()
    assert len(run(EXPERIMENT, ["mas"], [0], tmp_path / "out")["runs"]) == 1
    assert not (tmp_path / "out" / NAME).exists()


def test_nobody_lets_go_of_the_lock_of_another(tmp_path: Path) -> None:
    first = Lock(tmp_path / "out")
    (tmp_path / "out" / NAME).unlink()  # the folder was removed and made anew
    with locked(tmp_path / "out"):
        first.release()
        assert (tmp_path / "out" / NAME).exists()
        with pytest.raises(ForgetlessError, match="is in use by another process"):
            Lock(tmp_path / "out")


@pytest.mark.skipif(fcntl is None, reason="a system without them")
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_where_the_file_system_has_no_locks_nobody_is_kept_out(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(handle: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path / "out"):
        assert (tmp_path / "out" / NAME).exists()
    assert not (tmp_path / "out" / NAME).exists()


def test_the_lock_is_let_go_of_when_a_run_ends_or_fails(tmp_path: Path) -> None:
    def press(job: Job, progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(EXPERIMENT, ["mas"], [0], tmp_path, on_progress=press)
    with locked(tmp_path), pytest.raises(ForgetlessError, match=rf"in use by another process \({os.getpid()}\)"):
        run(EXPERIMENT, ["mas"], [0], tmp_path, resume=True)
    found = run(EXPERIMENT, ["mas"], [0], tmp_path, resume=True)
    with locked(tmp_path):  # a finished run is only read
        assert run(EXPERIMENT, ["mas"], [0], tmp_path) == found


def test_a_folder_that_cannot_be_written_gets_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ForgetlessError, match=r"out cannot be written: one of its folders is a file"),
        locked(tmp_path / "file/out"),
    ):
        pass


def directory(path: Path) -> RunDirectory:
    empty: dict[str, Any] = {"experiment": "small", "tasks": ["a"], "runs": [], "environment": {}}
    return RunDirectory(path, {"experiment": "small"}, empty)


def found(method: str, accuracy: float = 0.5) -> dict[str, Any]:
    return {"method": method, "seed": 0, "strength": None, "accuracy": [[accuracy]], "seconds": {}}


def test_results_are_merged_from_the_disk(tmp_path: Path) -> None:
    one, other = directory(tmp_path), directory(tmp_path)
    one.start({"torch": "2"})
    other.start({"torch": "2"})
    one.add(found("mas"))
    other.add(found("ewc"))
    one.add(found("si"))
    other.add(found("mas", 0.9))  # the same run again: the first stays
    held = results.read(tmp_path)
    assert [each["method"] for each in held["runs"]] == ["mas", "ewc", "si"]
    assert held["runs"][0]["accuracy"] == [[0.5]]
    assert held["environment"] == {"torch": "2"}


def test_a_result_is_not_added_to_damaged_ones(tmp_path: Path) -> None:
    one = directory(tmp_path)
    one.start({})
    one.add(found("mas"))
    path = tmp_path / "results.json"
    path.write_text(path.read_text().replace("0.5", "0.6"))
    before = path.read_bytes()
    with pytest.raises(ForgetlessError, match="is damaged: its values are not the ones written"):
        one.add(found("ewc"))
    assert path.read_bytes() == before


@pytest.mark.parametrize("finished", [False, True])
def test_resuming_removes_what_a_killed_process_has_left(finished: bool, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(EXPERIMENT, ["frozen"], [0], out)
    left = [out / NAME, out / "checkpoints/.frozen-0.safetensors.0123456789abcdef"]
    for path in left:
        path.write_text("x")
    run(EXPERIMENT, ["frozen"], [0] if finished else [0, 1], out, resume=True)
    assert not any(path.exists() for path in left)
