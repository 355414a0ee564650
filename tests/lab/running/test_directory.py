from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from forgetless.errors import ForgetlessError
from forgetless.lab.running.directory import RunDirectory

CONFIG = {"experiment": "small", "recipe": {"lr": 0.1, "sizes": (1, 2)}}


def opened(path: Path) -> RunDirectory:
    empty: dict[str, Any] = {"experiment": "small", "tasks": ["a"], "runs": [], "environment": {}}
    return RunDirectory(path, CONFIG, empty)


def test_opening_writes_nothing_and_starting_does(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    directory = opened(out)
    assert not directory.started
    assert list(tmp_path.iterdir()) == []
    directory.start({})
    assert {path.name for path in out.iterdir()} == {"checkpoints", "config.json", "results.json"}
    assert json.loads((out / "config.json").read_text()) == json.loads(json.dumps(CONFIG))
    assert opened(out).started


def test_a_folder_that_is_no_run_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("…")
    with pytest.raises(ForgetlessError) as caught:
        opened(tmp_path)
    assert str(caught.value) == f"{tmp_path} is neither empty nor a run directory; choose another --out."
    with pytest.raises(ForgetlessError) as caught:
        opened(tmp_path / "thesis.tex")
    assert str(caught.value) == f"{tmp_path / 'thesis.tex'} is a file; choose another --out."
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_a_process_has_left_that_was_killed_before_it_began_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".config.json.0123456789abcdef").write_text("{")
    (tmp_path / "lock").write_text("123")
    (tmp_path / "checkpoints").mkdir()
    directory = opened(tmp_path)
    assert not directory.started
    directory.start({})
    assert opened(tmp_path).started
    other = tmp_path / "other"
    (other / "checkpoints").mkdir(parents=True)
    (other / "checkpoints" / "mine").write_text("")
    with pytest.raises(ForgetlessError, match="is neither empty nor a run directory"):
        opened(other)


@pytest.mark.parametrize("name", ["config.json", "results.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "\x00\xff"])
def test_damaged_files_are_named_and_kept(tmp_path: Path, name: str, content: str) -> None:
    opened(tmp_path).start({})
    (tmp_path / name).write_text(content)
    with pytest.raises(ForgetlessError, match=name if content != "[]" or name == "results.json" else "another"):
        opened(tmp_path)
    assert (tmp_path / name).read_text() == content


def test_a_full_disk_is_told_where_a_line_of_the_log_needs_room(tmp_path: Path) -> None:
    directory = opened(tmp_path)
    directory.start({})
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(ForgetlessError, match=r"log\.jsonl cannot be written: the disk is full; free some space"):
        directory.log("train", epoch=1)


def test_a_directory_that_cannot_be_made_gets_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ForgetlessError, match=r"out cannot be written: one of its folders is a file"):
        opened(tmp_path / "file" / "out").start({})
