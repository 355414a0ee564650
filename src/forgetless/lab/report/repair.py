"""The page of a repaired checkpoint: what was kept of every weight's change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forgetless import files
from forgetless.lab.report.template import rendered


def repair_page(
    weights: Mapping[str, Mapping[str, Any]],
    written: int,
    method: str,
    command: str,
    path: str | Path,
    notes: Sequence[str] = (),
) -> None:
    """Write one HTML file that needs nothing else.

    Args:
        weights: weight → what `forgetless.edit.repair` says of it.
        written: how many tensors the checkpoint has.
        method: by what it was repaired.
        command: what repairs it again.
        path: the file.
        notes: sentences on the repair.

    Raises:
        ForgetlessError: it cannot be written.
    """
    total = sum(each["total"] for each in weights.values())
    kept = sum(each["kept"] for each in weights.values()) / total if total else 0.0
    template = Path(__file__).with_name("repair.html")
    values = {"weights": weights, "written": written, "method": method, "kept": kept}
    files.write_text(path, rendered(template, **values, command=command, notes=notes))
