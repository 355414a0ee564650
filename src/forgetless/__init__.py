"""Teach a trained PyTorch network something new without losing what it knows."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forgetless.errors import ForgetlessError as ForgetlessError
    from forgetless.measure import reference as reference
    from forgetless.measure.estimators.fisher import fisher as fisher
    from forgetless.measure.estimators.local_mas import hebbian as hebbian
    from forgetless.measure.estimators.mas import mas as mas
    from forgetless.measure.estimators.path_integral import Path as Path
    from forgetless.measure.importance import Importance as Importance
    from forgetless.measure.normalized import normalised as normalised
    from forgetless.protect.anchor import Anchor as Anchor
    from forgetless.protect.batchnorm import hold_statistics as hold_statistics
    from forgetless.protect.forgetting.meter import Meter as Meter
    from forgetless.protect.forgetting.meter import Stopped as Stopped
    from forgetless.protect.strength.agreement import Agreement as Agreement
    from forgetless.protect.strength.budget import Budget as Budget
    from forgetless.protect.strength.stability import stability_decay as stability_decay

__version__ = "0.1.0"

# Public names are loaded at their first use, so that the command line answers before torch is there.
_HOMES = {
    "Agreement": "forgetless.protect.strength.agreement",
    "Anchor": "forgetless.protect.anchor",
    "Budget": "forgetless.protect.strength.budget",
    "ForgetlessError": "forgetless.errors",
    "Importance": "forgetless.measure.importance",
    "Meter": "forgetless.protect.forgetting.meter",
    "Stopped": "forgetless.protect.forgetting.meter",
    "Path": "forgetless.measure.estimators.path_integral",
    "fisher": "forgetless.measure.estimators.fisher",
    "hebbian": "forgetless.measure.estimators.local_mas",
    "hold_statistics": "forgetless.protect.batchnorm",
    "mas": "forgetless.measure.estimators.mas",
    "normalised": "forgetless.measure.normalized",
    "stability_decay": "forgetless.protect.strength.stability",
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
