"""Ways to learn a stream in one pass with a small buffer, one file each, by name."""

from __future__ import annotations

import dataclasses
from typing import Any

from forgetless.errors import ForgetlessError
from forgetless.learn.online_learners.a_gem import AGEM
from forgetless.learn.online_learners.der_plus_plus import DERPlusPlus
from forgetless.learn.online_learners.er import ER
from forgetless.learn.online_learners.er_ace import ERACE
from forgetless.learn.online_learners.er_half import ERHalf
from forgetless.learn.online_learners.er_mas import ERMAS
from forgetless.learn.online_learners.finetune import Finetune
from forgetless.learn.online_learners.gdumb import GDumb
from forgetless.learn.online_learners.mango import Mango
from forgetless.learn.online_learners.mas_gated import MASGated
from forgetless.learn.online_learners.mir import MIR
from forgetless.learn.streaming.learner import Learner
from forgetless.model.parameters import listing

_KINDS: tuple[type[Learner], ...] = (
    *(Finetune, ER, ERHalf, ERACE, DERPlusPlus, AGEM, MIR, GDumb, ERMAS),
    *(Mango, MASGated),
)
LEARNERS = {kind.name: kind for kind in _KINDS}


def create(name: str, **settings: Any) -> Learner:
    """A fresh online learner by its name, with its defaults where nothing is given.

    Args:
        name: one of `LEARNERS`.
        settings: fields of the learner.

    Raises:
        ForgetlessError: no learner has that name, it has no such setting, or a value is out of range.
    """
    if name not in LEARNERS:
        raise ForgetlessError(f"there is no online method {name!r}; there are {listing(LEARNERS, most=99)}.")
    known = [each.name for each in dataclasses.fields(LEARNERS[name]) if each.init]
    unknown = [setting for setting in settings if setting not in known]
    if unknown:
        raise ForgetlessError(f"the method {name!r} has no setting {listing(unknown)}; it has {listing(known)}.")
    return LEARNERS[name](**settings)
