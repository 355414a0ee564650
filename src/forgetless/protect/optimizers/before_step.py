"""Doing something to the gradients before an optimizer's step, also where a closure computes them inside of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Call = tuple[tuple[Any, ...], dict[str, Any]]


def before_step(act: Callable[[], None], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
    """What a pre-hook of an optimizer's step returns, so that `act` comes when the gradients are there.

    Args:
        act: done at once; of a step with a closure, after each call of that, which is wrapped rather than preceded.
        args: what `step` was called with, the optimizer first.
        kwargs: its keywords.

    Returns:
        Other arguments for the step; None where they stay.
    """
    given = args[1:] or tuple(value for key, value in kwargs.items() if key == "closure")
    if not given or given[0] is None:
        act()
        return None

    def closure() -> Any:
        with torch.enable_grad():
            loss = given[0]()
        act()
        return loss

    return (args[0], closure), {key: value for key, value in kwargs.items() if key != "closure"}
