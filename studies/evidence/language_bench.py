"""The base, a domain that is learned from it, and every kind of importance of the base."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from forgetless import Importance
from forgetless.measure.estimators.fisher import fisher
from forgetless.measure.estimators.mas import mas
from forgetless.measure.estimators.output_curvature import output_curvature
from forgetless.model.parameters import fingerprints
from studies.repair_texts import Domain, Rows
from studies.repair_tuning import tune


@dataclass(frozen=True)
class Base:
    """What all domains and seeds share.

    Attributes:
        load: gives the model as it was, float32 and in eval mode, a new one every time.
        measured: unlabeled windows of old text, which importance is measured on.
        replayed: windows of the very text that the base was made from; only replay sees them.
        folder: keeps what was measured.
        chunk: rows that are measured at a time.
    """

    load: Callable[[], Any]
    measured: Rows
    replayed: Rows
    folder: Path
    chunk: int = 8

    def omega(self, name: str) -> Importance:
        """Ω of the base, divided by its mean over all weights, so that one grid of strengths serves all kinds."""
        path = self.folder / f"omega-{name}.safetensors"
        if not path.exists():
            scaled(OMEGAS[name](self)).save(path)
        return Importance.load(path)


@dataclass(frozen=True)
class Bench:
    """One domain that is learned from the base, with one seed.

    Attributes:
        base: where it starts.
        domain: what is learned.
        seed: of the order of its rows.
        rate: the peak of the learning rate.
        lora: the same for LoRA.
    """

    base: Base
    domain: Domain
    seed: int
    rate: float
    lora: float
    kept: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def learned(self, **options: Any) -> Any:
        """The base, fine-tuned on the domain."""
        model = self.base.load()
        tune(model, self.domain, self.seed, rate=self.rate, **options)
        return model

    def weights(self, name: str, make: Callable[[], Any]) -> dict[str, Tensor]:
        """The weights of a model that several methods begin with; it is trained once."""
        if name not in self.kept:
            self.kept[name] = weights(make())
        return self.kept[name]

    def tuned(self) -> dict[str, Tensor]:
        """The weights after plain fine-tuning."""
        return self.weights("tuned", self.learned)

    def at(self, state: Mapping[str, Tensor]) -> Any:
        """A model with these weights."""
        model = self.base.load()
        model.load_state_dict(state, strict=False)  # tied weights have one name
        return model

    @property
    def steps(self) -> float:
        """What the planned training is worth in steps at the peak rate, which falls to 0."""
        return self.domain.steps / 2


def weights(model: Any) -> dict[str, Tensor]:
    """The parameters' values."""
    return {name: each.detach().clone() for name, each in model.named_parameters()}


def scaled(importance: Importance) -> Importance:
    """Ω ÷ the mean of Ω over all weights."""
    total = sum(float(each.sum(dtype=torch.float64)) for each in importance.sums.values())
    mean = total / sum(each.numel() for each in importance.sums.values())
    sums = {name: (each / mean * importance.count).float() for name, each in importance.sums.items()}
    return Importance(sums, importance.count, importance.estimator, importance.weights)


def _measured(measure: Callable[..., Importance]) -> Callable[[Base], Importance]:
    def run(base: Base) -> Importance:
        ids = base.measured.ids[:, :-1]
        return measure(base.load(), {"input_ids": ids}, batch_size=base.chunk, progress=False)

    return run


def _modulus(base: Base) -> Importance:
    return modulus(base.load(), base.measured, base.chunk)


def modulus(model: Any, rows: Rows, chunk: int) -> Importance:
    """The mean over rows of |∂loss / ∂θ|, with the rows' own tokens as labels."""
    batch = {"input_ids": rows.ids[:, :-1], "labels": rows.ids[:, 1:]}
    return fisher(model, batch, labels="empirical", form="modulus", batch_size=chunk, progress=False)


def _ones(base: Base) -> Importance:
    model = base.load()
    named = dict(model.named_parameters())
    return Importance({name: torch.ones_like(each) for name, each in named.items()}, 1, "ones", fingerprints(named))


#: Every kind of Ω; all are measured on the same unlabeled windows.
OMEGAS: dict[str, Callable[[Base], Importance]] = {
    "mas": _measured(mas),
    "fisher": _measured(fisher),
    "modulus": _modulus,
    "curvature": _measured(output_curvature),
    "ones": _ones,
}
