"""A card for each method: its average, its forgetting, and what it does."""

from __future__ import annotations

from typing import Any

from forgetless.lab.report.shown import Shown
from forgetless.lab.results import MEANING


def section(shown: Shown) -> dict[str, Any] | None:
    """What the methods do, in a sentence each."""
    return {"meaning": MEANING}
