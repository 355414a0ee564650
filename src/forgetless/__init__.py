"""Teach a trained PyTorch network something new without losing what it knows."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forgetless import reference as reference
    from forgetless.anchor import Anchor as Anchor
    from forgetless.errors import ForgetlessError as ForgetlessError
    from forgetless.importance import Importance as Importance
    from forgetless.measure.fisher import fisher as fisher
    from forgetless.measure.hebbian import hebbian as hebbian
    from forgetless.measure.mas import mas as mas
    from forgetless.measure.normalised import normalised as normalised
    from forgetless.measure.path import Path as Path
    from forgetless.meter import Meter as Meter
    from forgetless.meter import Stopped as Stopped
    from forgetless.statistics import hold_statistics as hold_statistics
    from forgetless.strength.agreement import Agreement as Agreement
    from forgetless.strength.budget import Budget as Budget
    from forgetless.strength.stability import stability_decay as stability_decay

__version__ = "0.1.0"

# Public names are loaded at their first use, so that the command line answers before torch is there.
_HOMES = {
    "Agreement": "forgetless.strength.agreement",
    "Anchor": "forgetless.anchor",
    "Budget": "forgetless.strength.budget",
    "ForgetlessError": "forgetless.errors",
    "Importance": "forgetless.importance",
    "Meter": "forgetless.meter",
    "Stopped": "forgetless.meter",
    "Path": "forgetless.measure.path",
    "fisher": "forgetless.measure.fisher",
    "hebbian": "forgetless.measure.hebbian",
    "hold_statistics": "forgetless.statistics",
    "mas": "forgetless.measure.mas",
    "normalised": "forgetless.measure.normalised",
    "stability_decay": "forgetless.strength.stability",
}

__all__ = [
    "Agreement",
    "Anchor",
    "Budget",
    "ForgetlessError",
    "Importance",
    "Meter",
    "Path",
    "Stopped",
    "fisher",
    "hebbian",
    "hold_statistics",
    "mas",
    "normalised",
    "reference",
    "stability_decay",
]


def __getattr__(name: str) -> Any:
    if name == "reference":
        return import_module("forgetless.reference")
    if name not in _HOMES:
        raise AttributeError(f"module 'forgetless' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
