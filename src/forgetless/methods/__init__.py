"""Ways to learn a stream of tasks, one file each, by name."""

from __future__ import annotations

from forgetless.errors import ForgetlessError
from forgetless.methods.finetune import Finetune
from forgetless.methods.frozen import Frozen
from forgetless.methods.mas import MAS
from forgetless.parameters import listing
from forgetless.task import Method

METHODS: dict[str, type[Method]] = {kind.name: kind for kind in (Finetune, Frozen, MAS)}


def create(name: str, strength: float | None = None) -> Method:
    """A fresh method by its name, with the strength it defaults to unless one is given.

    Raises:
        ForgetlessError: no method has that name, or it takes no strength and one is given.
    """
    if name not in METHODS:
        raise ForgetlessError(f"there is no method {name!r}; there are {listing(METHODS)}.")
    if strength is None:
        return METHODS[name]()
    if METHODS[name]().strength is None:
        raise ForgetlessError(f"the method {name!r} takes no strength.")
    return METHODS[name](strength=strength)  # type: ignore[call-arg]
