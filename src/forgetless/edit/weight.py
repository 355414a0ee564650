"""What a repair is given and gives: one weight's versions, the settings, the result and what there is to say of it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from forgetless.edit.difference import Cut, Difference, largest
from forgetless.errors import ForgetlessError, brief, quoted

_FEWEST = 1024  # elements of a matrix whose spectrum says something
_SMALLEST = 1e-8  # of a change


@dataclass(frozen=True)
class Settings:
    """How much is repaired; every method reads the settings that it uses.

    Attributes:
        scale: of Donoho and Gavish's threshold; 1 is theirs.
        alpha: α of WiSE-FT: 0 gives the base, 1 the tuned model.
        strength: s of the blend by importance: 0 gives the tuned model. The default was taken from the language models
            of docs/repair.md.
        device: where it is computed.

    Raises:
        ForgetlessError: a number is out of its range.
    """

    scale: float = 1.0
    alpha: float = 0.5
    strength: float = 0.1
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale >= 0):
            raise ForgetlessError(f"scale must be 0 or more, not {self.scale}.")
        if not 0 <= self.alpha <= 1:
            raise ForgetlessError(f"alpha must be between 0 and 1, not {self.alpha}.")
        if not (math.isfinite(self.strength) and self.strength >= 0):
            raise ForgetlessError(f"strength must be 0 or more, not {self.strength}.")
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise ForgetlessError(f"the device {quoted(self.device)} cannot be used: {brief(error)}.") from error


@dataclass(frozen=True)
class Versions:
    """One weight.

    Attributes:
        base: before fine-tuning.
        tuned: after it; the same shape.
        omega: Ω of the base, the same shape, divided by its mean over all weights; None where it was not measured.
        rank: the rank of an adapter that the difference comes from; None where it has all.
    """

    base: Tensor
    tuned: Tensor
    omega: Tensor | None = None
    rank: int | None = None


@dataclass(frozen=True)
class Repaired:
    """The repaired weight.

    Attributes:
        tensor: with the shape and type of the tuned one; the tuned one itself where nothing is repaired.
        facts: what there is to say of it, which JSON can hold; empty where nothing was done.
    """

    tensor: Tensor
    facts: dict[str, Any]


def has_spectrum(versions: Versions) -> bool:
    """Whether a weight's difference is looked at as a matrix: two axes or more, 1,024 elements, and a change."""
    tuned = versions.tuned
    return tuned.dim() > 1 and tuned.numel() >= _FEWEST and largest(versions.base, tuned) > _SMALLEST


def thresholded(versions: Versions, settings: Settings, metric: Tensor | None) -> Repaired:
    """Keep the singular values of `m ⊙ Δ` above Donoho and Gavish's threshold; m = 1 where there is no metric."""
    if not has_spectrum(versions):
        return Repaired(versions.tuned, {})
    difference = Difference(versions.base, versions.tuned, metric, versions.rank, settings.device)
    cut, vectors = difference.cut(settings.scale)
    tensor = versions.tuned if cut.everything else difference.kept(vectors, versions.tuned)
    return Repaired(tensor, {"shape": list(versions.tuned.shape), **_facts(cut)})


def _facts(cut: Cut) -> dict[str, Any]:
    return {name: value if isinstance(value, int) else float(f"{value:.6g}") for name, value in asdict(cut).items()}
