"""Ways to learn a stream of tasks, one file each, by name."""

from __future__ import annotations

import dataclasses
import math

from forgetless.errors import ForgetlessError
from forgetless.methods.er import ER
from forgetless.methods.finetune import Finetune
from forgetless.methods.frozen import Frozen
from forgetless.methods.joint import Joint
from forgetless.methods.l2sp import L2SP
from forgetless.methods.lwf import LwF
from forgetless.methods.mas import MAS
from forgetless.methods.si import SI
from forgetless.parameters import listing
from forgetless.task import Method

_KINDS: tuple[type[Method], ...] = (Finetune, Frozen, MAS, L2SP, SI, LwF, ER, Joint)
METHODS = {kind.name: kind for kind in _KINDS}


def create(name: str, strength: float | None = None) -> Method:
    """A fresh method by its name, with its default strength unless one is given.

    Raises:
        ForgetlessError: no method has that name, it takes no strength and one is given, or the strength is
            negative or not finite.
    """
    if name not in METHODS:
        raise ForgetlessError(f"there is no method {name!r}; there are {listing(METHODS, most=99)}.")
    method = METHODS[name]()
    if strength is None:
        return method
    if method.strength is None:
        raise ForgetlessError(f"the method {name!r} takes no strength.")
    if not (math.isfinite(strength) and strength >= 0):
        raise ForgetlessError(f"the strength must be a finite number of 0 or more, not {strength!r}.")
    return dataclasses.replace(method, strength=strength)  # type: ignore[call-arg]
