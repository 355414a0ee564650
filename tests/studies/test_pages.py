"""The committed pages are what the commands make of the committed runs, and nothing in them is out of place."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from forgetless.files import read_sealed
from forgetless.lab import results
from studies import pages

ROOT = Path(__file__).parents[2]
FILES = sorted(path for path in (ROOT / "results").rglob("*.json") if path.parent.name not in ("gpu", "soak"))


def test_pages_and_tables_are_what_the_commands_make(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "README.md", tmp_path)
    figures = set((tmp_path / "docs" / "figures").iterdir())
    for path in figures:
        path.unlink()
    pages.write(ROOT / "results", tmp_path / "docs", tmp_path / "README.md")
    for made in [tmp_path / "README.md", *sorted((tmp_path / "docs").rglob("*.md"))]:
        committed = ROOT / made.relative_to(tmp_path)
        assert made.read_text(encoding="utf-8") == committed.read_text(encoding="utf-8"), committed
    assert set((tmp_path / "docs" / "figures").iterdir()) == figures  # their bytes depend on matplotlib's release


def test_committed_runs_have_plain_names_and_whole_contents() -> None:
    assert len(FILES) >= 80
    for path in FILES:
        assert path.parent.parent == ROOT / "results"
        assert path.name.isascii()
        assert " " not in path.name
        held = read_sealed(path)
        for run in results.read(path)["runs"] if {"runs", "tasks"} <= held.keys() else ():
            assert all(
                f"{json.dumps(row)}" in path.read_text(encoding="utf-8") for row in run["accuracy"]
            )  # a row a line


def test_no_command_in_them_has_a_path_of_one_machine() -> None:
    for path in FILES:
        command = read_sealed(path).get("environment", {}).get("command", "")
        assert ".." not in command
        assert "/" not in command.replace("--out runs/", "")
