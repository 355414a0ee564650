"""Figures for TensorBoard."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Logger:
    """Writes event files to `FOLDER/RUN`.

    Args:
        folder: exists.
        run: the run's name.
        project: not used.
    """

    def __init__(self, folder: Path, run: str, project: str) -> None:
        tensorboard: Any = importlib.import_module("torch.utils.tensorboard")  # which has no types
        self._writer = tensorboard.SummaryWriter(str(folder / run))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a scalar for each figure, and write them: a process that is killed later has lost none of them."""
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Write the rest."""
        self._writer.close()
