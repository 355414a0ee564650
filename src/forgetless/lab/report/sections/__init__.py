"""The sections of a run's page in their order, a file each, with a template of the same name.

Every file has one function, `section(shown)`, which gives the values that its template needs, or None to leave the
section out. What several sections draw with is beside this folder.
"""

from __future__ import annotations

from typing import Any, Protocol

from forgetless.lab.report.sections import (
    answers,
    averages,
    differences,
    drift,
    frontier,
    importance,
    matrices,
    protection,
    repetition,
    sequence,
    streamed,
    tasks,
)
from forgetless.lab.report.shown import Shown


class Section(Protocol):
    """A file of this folder."""

    __name__: str

    def section(self, shown: Shown) -> dict[str, Any] | None:
        """What its template needs; None where there is nothing to show."""


SECTIONS: tuple[Section, ...] = (
    averages,
    tasks,
    differences,
    sequence,
    streamed,
    frontier,
    matrices,
    answers,
    drift,
    protection,
    importance,
    repetition,
)
