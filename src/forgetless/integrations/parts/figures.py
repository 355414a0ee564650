"""What an anchor has to say in a log: the same keys in every trainer and logger."""

from __future__ import annotations

import contextlib

from forgetless.errors import ForgetlessError
from forgetless.integrations.parts.delta_anchor import DeltaAnchor
from forgetless.protect.anchor import Anchor
from forgetless.protect.forgetting.meter import ForgettingMeter


def figures(anchor: Anchor | DeltaAnchor, meter: ForgettingMeter | None = None) -> dict[str, float]:
    """How far a network has moved where it matters, how strongly it is held, and what it still answers alike.

    Args:
        anchor: θ*, Ω and λ.
        meter: what asks the network about samples of the old use, if there is one.

    Returns:
        `forgetless/drift`, `Σ Ω (θ − θ*)²`; `forgetless/strength`, λ; `forgetless/frozen_fraction`, the share of the
        anchored weights that the pull stops, where it pulls; `forgetless/agreement`, the share of equal answers, where
        a meter has read it.
    """
    found = {"forgetless/drift": float(anchor.drift()), "forgetless/strength": float(anchor.strength)}
    with contextlib.suppress(ForgetlessError):  # no pull, no share of what it stops
        found["forgetless/frozen_fraction"] = float(anchor.frozen_fraction())
    if meter is not None and meter.history:
        found["forgetless/agreement"] = meter.history[-1].agreement
    return found
