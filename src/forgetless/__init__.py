"""Teach a trained PyTorch network something new without losing what it has learned."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forgetless.errors import ForgetlessError as ForgetlessError
    from forgetless.integrations.peft import DeltaAnchor as DeltaAnchor
    from forgetless.learn import metrics as metrics
    from forgetless.learn.online import TaskFreeMAS as TaskFreeMAS
    from forgetless.measure import reference as reference
    from forgetless.measure.estimators.fisher import fisher as fisher
    from forgetless.measure.estimators.local_mas import local_mas as local_mas
    from forgetless.measure.estimators.mas import mas as mas
    from forgetless.measure.estimators.output_curvature import output_curvature as output_curvature
    from forgetless.measure.estimators.path_integral import PathIntegral as PathIntegral
    from forgetless.measure.importance import Importance as Importance
    from forgetless.measure.measurement import Measurement as Measurement
    from forgetless.measure.normalized import normalized as normalized
    from forgetless.measure.selection import core_masks as core_masks
    from forgetless.protect.anchor import Anchor as Anchor
    from forgetless.protect.batchnorm import freeze_batchnorm as freeze_batchnorm
    from forgetless.protect.distillation import Distillation as Distillation
    from forgetless.protect.forgetting.meter import ForgettingLimitReached as ForgettingLimitReached
    from forgetless.protect.forgetting.meter import ForgettingMeter as ForgettingMeter
    from forgetless.protect.frozen.freeze import FrozenCore as FrozenCore
    from forgetless.protect.frozen.freeze import freeze as freeze
    from forgetless.protect.scaled_rates import ScaledRates as ScaledRates
    from forgetless.protect.strength.drift_budget import DriftBudget as DriftBudget
    from forgetless.protect.strength.hold_share import HoldShare as HoldShare
    from forgetless.protect.strength.keep_agreement import KeepAgreement as KeepAgreement
    from forgetless.protect.strength.stability_decay import stability_decay as stability_decay

__version__ = "0.1.0"

# Public names are loaded at their first use, so that the command line answers before torch is there.
_HOMES = {
    "Measurement": "forgetless.measure.measurement",
    "KeepAgreement": "forgetless.protect.strength.keep_agreement",
    "Anchor": "forgetless.protect.anchor",
    "DeltaAnchor": "forgetless.integrations.peft",
    "Distillation": "forgetless.protect.distillation",
    "DriftBudget": "forgetless.protect.strength.drift_budget",
    "ForgetlessError": "forgetless.errors",
    "HoldShare": "forgetless.protect.strength.hold_share",
    "Importance": "forgetless.measure.importance",
    "ForgettingMeter": "forgetless.protect.forgetting.meter",
    "ForgettingLimitReached": "forgetless.protect.forgetting.meter",
    "PathIntegral": "forgetless.measure.estimators.path_integral",
    "TaskFreeMAS": "forgetless.learn.online",
    "fisher": "forgetless.measure.estimators.fisher",
    "local_mas": "forgetless.measure.estimators.local_mas",
    "freeze_batchnorm": "forgetless.protect.batchnorm",
    "FrozenCore": "forgetless.protect.frozen.freeze",
    "ScaledRates": "forgetless.protect.scaled_rates",
    "core_masks": "forgetless.measure.selection",
    "freeze": "forgetless.protect.frozen.freeze",
    "mas": "forgetless.measure.estimators.mas",
    "normalized": "forgetless.measure.normalized",
    "output_curvature": "forgetless.measure.estimators.output_curvature",
    "stability_decay": "forgetless.protect.strength.stability_decay",
}

_MODULES = {"metrics": "forgetless.learn.metrics", "reference": "forgetless.measure.reference"}

__all__ = [
    "Anchor",
    "DeltaAnchor",
    "Distillation",
    "DriftBudget",
    "ForgetlessError",
    "ForgettingLimitReached",
    "ForgettingMeter",
    "FrozenCore",
    "HoldShare",
    "Importance",
    "KeepAgreement",
    "Measurement",
    "PathIntegral",
    "ScaledRates",
    "TaskFreeMAS",
    "core_masks",
    "fisher",
    "freeze",
    "freeze_batchnorm",
    "local_mas",
    "mas",
    "metrics",
    "normalized",
    "output_curvature",
    "reference",
    "stability_decay",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(_MODULES[name])
    if name not in _HOMES:
        raise AttributeError(f"module 'forgetless' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
