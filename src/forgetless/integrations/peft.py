"""PEFT: what matters in the base of a model with LoRA adapters, and its protection from what they add to it.

What counts is ΔW = s·B·A, not A and B: with fresh adapters B is 0, no output depends on A, and its importance is 0.
"""

from __future__ import annotations

from forgetless.integrations.parts.base_importance import base_importance as base_importance
from forgetless.integrations.parts.delta_anchor import DeltaAnchor as DeltaAnchor
