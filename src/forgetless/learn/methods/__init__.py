"""Ways to learn a stream of tasks, one file each, by name."""

from __future__ import annotations

import dataclasses
from typing import Any

from forgetless.errors import ForgetlessError
from forgetless.learn.families.composed import Composed
from forgetless.learn.method import Method
from forgetless.learn.methods.a_gem import AGEM
from forgetless.learn.methods.der_plus_plus import DERPlusPlus
from forgetless.learn.methods.ebll import EBLL
from forgetless.learn.methods.er import ER
from forgetless.learn.methods.ewc import EWC
from forgetless.learn.methods.finetune import Finetune
from forgetless.learn.methods.frozen import Frozen
from forgetless.learn.methods.imm_mean import IMMMean
from forgetless.learn.methods.imm_mode import IMMMode
from forgetless.learn.methods.joint import Joint
from forgetless.learn.methods.l2sp import L2SP
from forgetless.learn.methods.local_mas import LocalMAS
from forgetless.learn.methods.lwf import LwF
from forgetless.learn.methods.mas import MAS
from forgetless.learn.methods.mas_per_batch import MASPerBatch
from forgetless.learn.methods.mas_remeasured import MASRemeasured
from forgetless.learn.methods.online_ewc import OnlineEWC
from forgetless.learn.methods.rwalk import RWalk
from forgetless.learn.methods.si import SI
from forgetless.learn.methods.task_free_mas import TaskFreeMASMethod
from forgetless.model.parameters import listing

_KINDS: tuple[type[Method], ...] = (
    *(Finetune, Frozen),
    *(MAS, MASRemeasured, LocalMAS, MASPerBatch, TaskFreeMASMethod, L2SP, EWC, OnlineEWC, SI, RWalk),  # anchor weights
    *(LwF, EBLL),  # keep outputs
    *(IMMMean, IMMMode),  # merge weights
    *(ER, DERPlusPlus, AGEM, Joint),  # keep samples
)
METHODS = {kind.name: kind for kind in _KINDS}


def create(name: str, strength: float | str | None = None, **settings: Any) -> Method:
    """A fresh method by its name, with its defaults where nothing is given.

    Args:
        name: one of `METHODS`, or several joined by + ("mas+er", "mas+lwf"), which then act together.
        strength: λ; of several methods, that of the first that takes one. Methods that anchor weights also take "auto",
            which holds back most of the movement of each task's training.
        settings: other fields of the method; of several methods, none.

    Raises:
        ForgetlessError: no method has that name, it takes no strength and one is given, the strength is
            negative or not finite or one that the method does not take, or it has no such setting.
    """
    kinds = [_kind(part) for part in _parts(name)]
    method = kinds[0]() if len(kinds) == 1 else Composed([kind() for kind in kinds])
    if settings:
        known = [] if isinstance(method, Composed) else list(method.settings())
        unknown = [setting for setting in settings if setting not in known]
        if unknown:
            raise ForgetlessError(f"the method {name!r} has no setting {listing(unknown)}; it has {listing(known)}.")
        method = dataclasses.replace(method, **settings)
    if strength is None:
        return method
    if method.strength is None:
        raise ForgetlessError(f"the method {name!r} takes no strength.")
    method.set_strength(strength)
    return method


def _parts(name: str) -> list[str]:
    """The names in a composition; a name of the registry may itself end in +."""
    if name in METHODS:
        return [name]
    for known in sorted(METHODS, key=len, reverse=True):
        if name.startswith(f"{known}+"):
            return [known, *_parts(name[len(known) + 1 :])]
    return [name]


def _kind(name: str) -> type[Method]:
    if name not in METHODS:
        raise ForgetlessError(
            f"there is no method {name!r}; there are {listing(METHODS, most=99)}, and compositions such as 'mas+er'."
        )
    return METHODS[name]
