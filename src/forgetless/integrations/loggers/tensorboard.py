"""Figures for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter


class Logger:
    """Writes event files to `FOLDER/RUN`.

    Args:
        folder: exists.
        run: the run's name.
        project: not used.
    """

    def __init__(self, folder: Path, run: str, project: str) -> None:
        self._writer = SummaryWriter(str(folder / run), flush_secs=10)  # type: ignore[no-untyped-call]

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a scalar for each figure."""
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Write the rest."""
        self._writer.close()  # type: ignore[no-untyped-call]
