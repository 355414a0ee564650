"""The ways in which a callback protects, by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.integrations.parts.held_weights import HeldWeights
from forgetless.integrations.parts.kept_answers import KeptAnswers
from forgetless.integrations.parts.protection import Protection
from forgetless.model.parameters import listing
from forgetless.protect.strength.dial import Dial

METHODS: dict[str, type[HeldWeights] | type[KeptAnswers]] = {each.method: each for each in (HeldWeights, KeptAnswers)}
_KINDS = {"anchor": "mas", "delta anchor": "mas", "distillation": "distillation"}  # of files


def protection(
    method: str, old: Any, strength: float | str | Dial, probes: Any, options: Mapping[str, Any]
) -> HeldWeights | KeptAnswers:
    """What protects by a method.

    Raises:
        ForgetlessError: there is no such method, or it does not take what is given.
    """
    if method not in METHODS:
        raise ForgetlessError(f"method must be one of {listing(METHODS)}, not {method!r}.")
    return METHODS[method](old, strength, probes, options)


def refuse_other_file(path: Path, made: Protection) -> None:
    """Refuse the file of another method's checkpoint; one that does not tell its kind is left to its reader.

    Raises:
        ForgetlessError: as said.
    """
    _refuse_other(str(path), _KINDS.get(files.kind_of(path) or ""), made)


def refuse_other_state(where: str, state: Mapping[str, Tensor], made: Protection) -> None:
    """Refuse another method's state, as `Protection.state` gave it.

    Raises:
        ForgetlessError: as said.
    """
    _refuse_other(where, "distillation" if "steps" in state else "mas", made)


def _refuse_other(where: str, method: str | None, made: Protection) -> None:
    if method not in (None, made.method):
        raise ForgetlessError(
            f'{where} is of a training with method="{method}", and ForgetlessCallback was given '
            f'method="{made.method}"; resume with the method that training began with, or begin anew.'
        )
