"""Each method's matrix R as a heat map."""

from __future__ import annotations

from typing import Any

from forgetless.lab.report.shown import Shown


def section(shown: Shown) -> dict[str, Any] | None:
    """Nothing but the summary."""
    return {}
