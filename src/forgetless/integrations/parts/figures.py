"""What protects has to say in a log: the same keys in every trainer and logger."""

from __future__ import annotations

import contextlib
import math

from forgetless.errors import ForgetlessError
from forgetless.integrations.parts.delta_anchor import DeltaAnchor
from forgetless.protect.anchor import Anchor
from forgetless.protect.distillation import Distillation
from forgetless.protect.forgetting.meter import ForgettingMeter


def figures(anchor: Anchor | DeltaAnchor | Distillation, meter: ForgettingMeter | None = None) -> dict[str, float]:
    """How far a network has moved where it matters, how strongly it is held, and what it still answers alike.

    Args:
        anchor: θ*, Ω and λ; or the old answers and λ.
        meter: what asks the network about samples of the old use, if there is one.

    Returns:
        `forgetless/drift`, `Σ Ω (θ − θ*)²`; `forgetless/strength`, λ; `forgetless/frozen_fraction`, the share of the
        anchored weights that the pull stops, where it pulls; `forgetless/agreement`, the share of equal answers, where
        a meter has read it. Of a distillation, in place of the drift and that share, `forgetless/divergence`: how far
        the answers to the last batch of old samples were from the old ones, in nats an answer, before its step.
    """
    found = {"forgetless/strength": float(anchor.strength)}
    if isinstance(anchor, Distillation):
        if not math.isnan(divergence := anchor.divergence):  # there was no step yet
            found["forgetless/divergence"] = divergence
    else:
        found["forgetless/drift"] = float(anchor.drift())
        with contextlib.suppress(ForgetlessError):  # no pull, no share of what it stops
            found["forgetless/frozen_fraction"] = float(anchor.frozen_fraction())
    if meter is not None and meter.history:
        found["forgetless/agreement"] = meter.history[-1].agreement
    return found
