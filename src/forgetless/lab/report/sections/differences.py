"""One method minus every other on the same seeds, with confidence intervals, as a table."""

from __future__ import annotations

from typing import Any

from forgetless.lab.report.shown import Shown
from forgetless.lab.results import points


def section(shown: Shown) -> dict[str, Any] | None:
    """Which methods it is compared with, and where an interval lies in the drawing; None with a single seed."""
    if shown.compared is None:
        return None
    pairs = [pair for each in shown.compared.differences for pair in (each.average, each.forgetting) if pair]
    reach = max((abs(end) for pair in pairs for end in (pair.low, pair.high)), default=0.0) or 1.0
    return {"points": points, "at": lambda value: round(50 + 46 * value / reach, 1)}
