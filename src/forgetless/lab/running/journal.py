"""The log of a run directory, read from outside while it grows."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from forgetless import files


class Journal:
    """`log.jsonl` of a run directory.

    Args:
        folder: the run directory.
        at: how many of its bytes were read before.

    Attributes:
        at: how many bytes are read.
    """

    def __init__(self, folder: Path, at: int = 0) -> None:
        self._path, self.at = folder / "log.jsonl", at

    def more(self) -> list[Mapping[str, Any]]:
        """What was added since the last call; a line that is not whole yet is left for the next one.

        Raises:
            ForgetlessError: it cannot be read.
        """
        if not self._path.exists() or self._path.stat().st_size == self.at:
            return []
        with files.opened(self._path) as log:
            if os.fstat(log.fileno()).st_size < self.at:
                self.at = 0  # another log
            log.seek(self.at)
            *lines, rest = log.read().split(b"\n")
            self.at = log.tell() - len(rest)
        found: list[Mapping[str, Any]] = []
        for line in lines:
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                continue  # a process was killed while it wrote, or somebody else wrote it
            if isinstance(entry, dict):
                found.append(entry)
        return found
