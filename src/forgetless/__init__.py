"""Teach a trained PyTorch network something new without losing what it knows."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forgetless import reference as reference
    from forgetless.anchor import Anchor as Anchor
    from forgetless.errors import ForgetlessError as ForgetlessError
    from forgetless.importance import Importance as Importance
    from forgetless.measure.mas import mas as mas

__version__ = "0.1.0"

# Public names are loaded at their first use, so that the command line answers before torch is there.
_HOMES = {
    "Anchor": "forgetless.anchor",
    "ForgetlessError": "forgetless.errors",
    "Importance": "forgetless.importance",
    "mas": "forgetless.measure.mas",
}

__all__ = ["Anchor", "ForgetlessError", "Importance", "mas", "reference"]


def __getattr__(name: str) -> Any:
    if name == "reference":
        return import_module("forgetless.reference")
    if name not in _HOMES:
        raise AttributeError(f"module 'forgetless' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
