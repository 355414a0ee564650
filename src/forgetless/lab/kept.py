"""The file that an experiment keeps of a run: where it is, and which run it says that it is of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

KEPT = "what an experiment keeps of a run"  # the kind of the file


@dataclass(frozen=True)
class Kept:
    """Which run a kept file is of; it stands under "run" in its header."""

    method: str
    seed: int
    order: int


def stem(method: str, seed: int, order: int = 0) -> str:
    """The name of a run's files, without their ending."""
    return f"{method}-{seed}" + (f"-{order}" if order else "")


def kept(folder: Path, stem: str) -> Path:
    """Where a run directory keeps what its experiment asks to be kept of a run.

    Args:
        folder: the run directory.
        stem: the name of the run's files.
    """
    return folder / "kept" / f"{stem}.safetensors"
