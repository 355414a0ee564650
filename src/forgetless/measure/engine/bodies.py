"""The bodies of torch's Python functions, run with every call inside them in view."""

from __future__ import annotations

import types
from collections.abc import Callable
from functools import cache
from typing import Any

_CHECKS = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")


@cache
def body_of(function: Callable[..., Any]) -> Callable[..., Any] | None:
    """The body of one of torch's Python functions (`F.layer_norm`, …); `None` for a built-in one.

    Such a function hands itself to the mode instead of running, and inside the mode its own calls would be hidden. The
    copy made here has the same code but never hands itself over. A method that calls `super()` is no more than a
    built-in one of the same name.
    """
    if not isinstance(function, types.FunctionType) or not any(c in function.__globals__ for c in _CHECKS):
        return None
    if "__class__" in function.__code__.co_freevars:
        return None
    never = dict.fromkeys(_CHECKS, lambda *_: False)
    scope = {**function.__globals__, **never}
    body = types.FunctionType(function.__code__, scope, function.__name__, function.__defaults__, function.__closure__)
    body.__kwdefaults__ = function.__kwdefaults__
    return body
