"""The run directory of language models: their results, and their page."""

from __future__ import annotations

from typing import Any

from forgetless import files
from forgetless.lab.long_text.page import page
from forgetless.lab.long_text.results import read
from forgetless.lab.running.directory import RunDirectory


class TextDirectory(RunDirectory):
    """A run directory whose runs are trained language models."""

    def _read(self) -> dict[str, Any]:
        return read(self.path / "results.json")

    def _store(self, held: dict[str, Any]) -> None:
        files.write_sealed(self.path / "results.json", held)

    def _show(self) -> None:
        page(self.results, self.path / "report.html")
