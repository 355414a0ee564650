"""What was said in warnings."""

from __future__ import annotations

import warnings
from collections.abc import Iterable


def said(caught: Iterable[warnings.WarningMessage]) -> list[str]:
    """Every sentence but the garbage collector's, which may come upon what an earlier test left at any moment."""
    return [str(each.message) for each in caught if not issubclass(each.category, ResourceWarning)]
