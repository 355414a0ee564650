"""The command line as a person uses it: words in; exit code, stdout and stderr out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from forgetless.cli import app

Command = Callable[..., Any]  # gives what CliRunner does: exit_code, stdout, stderr, exception


@pytest.fixture
def forgetless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs `forgetless WORDS…` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def refused(forgetless: Command, tmp_path: Path) -> Callable[..., None]:
    """Asserts that the words are refused with a sentence and exit code 2, and that nothing was written or changed."""

    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def check(sentence: str, *words: object) -> None:
        before = contents()
        done = forgetless(*words)
        assert (done.exit_code, done.stdout, done.stderr) == (2, "", f"forgetless: {sentence}\n")
        assert contents() == before

    return check
