"""The repairs that the studies compare, all with one signature: Ω, base, tuned and a setting to a state dict."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from forgetless import Importance
from forgetless.edit import Settings, repaired
from forgetless.learn.seeding import derive

State = Mapping[str, Tensor]


def wise_ft(_: Importance, base: State, tuned: State, alpha: float) -> dict[str, Tensor]:
    """WiSE-FT."""
    return repaired(base, tuned, "wise-ft", settings=Settings(alpha=alpha))[0]


def dg_hard(_: Importance, base: State, tuned: State, scale: float) -> dict[str, Tensor]:
    """DG-Hard."""
    return repaired(base, tuned, "dg-hard", settings=Settings(scale=scale))[0]


def importance_dg_hard(importance: Importance, base: State, tuned: State, scale: float) -> dict[str, Tensor]:
    """DG-Hard in the metric of Ω."""
    return repaired(base, tuned, "importance-dg-hard", importance=importance, settings=Settings(scale=scale))[0]


def blended(importance: Importance, base: State, tuned: State, strength: float) -> dict[str, Tensor]:
    """The blend toward the base by Ω."""
    return repaired(base, tuned, "importance", importance=importance, settings=Settings(strength=strength))[0]


def alike(importance: Importance, base: State, tuned: State, strength: float) -> dict[str, Tensor]:
    """The same with the mean of Ω over each weight in place of its elements: do single elements matter?"""
    sums = {name: each.mean().expand_as(each) for name, each in importance.sums.items()}
    return blended(Importance(sums, importance.count), base, tuned, strength)


def norms_back(_: Importance, base: State, tuned: State, alpha: float) -> dict[str, Tensor]:
    """WiSE-FT for weights with one axis alone (scales of norms, biases): are they all that matters?"""
    return {name: base[name].lerp(each, alpha) if each.dim() == 1 else each for name, each in tuned.items()}


def trimmed(_: Importance, base: State, tuned: State, density: float) -> dict[str, Tensor]:
    """TIES' first step: of every weight's Δ the share `density` with the largest |Δ|, the rest 0."""
    result = {}
    for name, before in base.items():
        delta = tuned[name] - before
        fewest = max(1, int(density * delta.numel()))
        least = delta.abs().flatten().kthvalue(delta.numel() - fewest + 1).values
        result[name] = before + delta * (delta.abs() >= least)
    return result


def dropped(_: Importance, base: State, tuned: State, density: float) -> dict[str, Tensor]:
    """DARE: of every weight's Δ a random share `density`, divided by it, so that the expectation stays."""
    result = {}
    for name, before in base.items():
        generator = torch.Generator().manual_seed(derive(0, "dare", name))
        kept = torch.rand(before.shape, generator=generator) < density
        result[name] = before + (tuned[name] - before) * kept / density
    return result


def energy_kept(base: State, tuned: State) -> float:
    """The share of ‖Δ‖², of all weights that have a spectrum, that DG-Hard keeps at its authors' threshold."""
    facts = repaired(base, tuned, "dg-hard")[1]
    sizes = {name: float((tuned[name] - base[name]).square().sum(dtype=torch.float64)) for name in facts}
    return float(sum(sizes[name] * each["energy"] for name, each in facts.items()) / sum(sizes.values()))


#: Method → its settings, fixed before anything was measured, and how it repairs; in the order in which they run.
REPAIRS: dict[str, tuple[tuple[float, ...], Callable[[Importance, State, State, float], dict[str, Tensor]]]] = {
    "WiSE-FT": ((0.3, 0.5, 0.7, 0.85), wise_ft),
    "DG-Hard": ((0.5, 1, 2, 3), dg_hard),
    "importance": ((0.03, 0.1, 0.3, 1, 3), blended),
    "importance DG-Hard": ((0.5, 1, 2), importance_dg_hard),
    "TIES trim": ((0.1, 0.2, 0.5), trimmed),
    "DARE": ((0.2, 0.5), dropped),
    "importance, a mean per weight": ((0.1, 0.3, 1), alike),
    "norms and biases back": ((0,), norms_back),
}
#: Beside them: the share of the weights that MAS holds while the new skill is learned.
#: Of `HoldShare`, for MAS during training; the language models have the first alone.
SHARES = (0.25, 0.5)
