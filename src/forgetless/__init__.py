"""Teach a trained PyTorch network something new without losing what it knows."""

from forgetless import reference
from forgetless.errors import ForgetlessError
from forgetless.importance import Importance
from forgetless.measure.mas import mas

__version__ = "0.1.0"

__all__ = ["ForgetlessError", "Importance", "mas", "reference"]
