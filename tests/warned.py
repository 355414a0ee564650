"""What was said in warnings."""

from __future__ import annotations

import warnings
from collections.abc import Iterable


def said(caught: Iterable[warnings.WarningMessage]) -> list[str]:
    """The sentences for users. What an earlier test left to the garbage collector may be warned of at any moment."""
    return [str(each.message) for each in caught if issubclass(each.category, UserWarning)]
