"""Figures for Trackio, on this disk unless the environment names a Space or a server."""

from __future__ import annotations

import contextlib
import contextvars
import importlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Logger:
    """Writes to a project of Trackio, which keeps its projects in a place of its own (`TRACKIO_DIR`).

    Args:
        folder: exists; remembers which runs were opened.
        run: the run's name; a run that was opened from this folder before is continued.
        project: the project's name.
    """

    def __init__(self, folder: Path, run: str, project: str) -> None:
        opened = folder / f"{run}.opened"
        resume = "allow" if opened.exists() else "never"
        opened.touch()

        trackio: Any = importlib.import_module("trackio")  # which checks of types need not find

        def begin() -> Any:
            return trackio.init(project, run, resume=resume, embed=False, auto_log_gpu=False, auto_log_cpu=False)

        # trackio.init ends the run that its context has begun; in a context of its own each goes on.
        with contextlib.redirect_stdout(io.StringIO()):
            self._run = contextvars.Context().run(begin)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add the figures to the step."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Write the rest."""
        with contextlib.redirect_stdout(io.StringIO()):
            self._run.finish()
