"""Figures as a table of four columns: run, step, key and value; one file for all runs of a folder."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


class Logger:
    """Appends to `FOLDER/metrics.csv`, which is whole after every call.

    Args:
        folder: exists.
        run: the first column.
        project: not used.
    """

    def __init__(self, folder: Path, run: str, project: str) -> None:
        self._path, self._run = folder / "metrics.csv", run
        if not self._path.exists():
            self._append([("run", "step", "key", "value")])

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a line for each figure."""
        self._append((self._run, step, key, value) for key, value in values.items())

    def close(self) -> None:
        """Nothing is left to write."""

    def _append(self, rows: Iterable[tuple[Any, ...]]) -> None:
        with self._path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
