"""Ways to merge the versions of a tensor, one file each, by name: an open list."""

from __future__ import annotations

from forgetless.edit.merging import dare_linear, dare_ties, fisher, mas, mean, task_arithmetic, ties, wise_ft
from forgetless.edit.merging.parts.method import Method
from forgetless.errors import ForgetlessError, quoted

METHODS: dict[str, Method] = {
    each.METHOD.name: each.METHOD
    for each in (mean, task_arithmetic, wise_ft, ties, dare_linear, dare_ties, fisher, mas)
}


def method_called(name: str) -> Method:
    """The method of that name.

    Raises:
        ForgetlessError: there is none.
    """
    if name not in METHODS:
        raise ForgetlessError(f"there is no way to merge called {quoted(name)}; there are {', '.join(METHODS)}.")
    return METHODS[name]
