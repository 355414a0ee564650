"""`Method`: one way to merge the versions of a tensor, as data; `Settings`: what it is told beside the tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from forgetless.edit.blocks import Parts, slices
from forgetless.errors import ForgetlessError, quoted

MAJORITIES = ("sum", "count")
RESCALES = ("density", "l1", "none")
_BLOCK = 1 << 18  # elements: a block of each of a dozen models takes little memory


@dataclass(frozen=True)
class Settings:
    """What a method is told beside the tensors; each method uses some of it.

    Attributes:
        weights: w_k, one a model.
        density: the share of a task vector's elements that is kept, one a model, in (0, 1].
        scale: λ, what the merged task vector is multiplied by.
        alpha: α, how far from the base (0) to the model (1).
        normalize: divide by the sum of the weights that took part.
        majority: how the sign of an element is elected: by the "sum" of all values, or by the "count" of their signs.
        rescale: what a task vector that lost elements at random is multiplied by: 1/"density", what restores its "l1"
            norm, or nothing ("none").
        seed: decides which elements are dropped at random.
        tensor: the tensor's name, which decides it too.
    """

    weights: tuple[float, ...]
    density: tuple[float, ...] = ()
    scale: float = 1.0
    alpha: float = 0.5
    normalize: bool = False
    majority: str = "sum"
    rescale: str = "density"
    seed: int = 0
    tensor: str = ""


@dataclass(frozen=True)
class TaskVectors:
    """`τ_k = θ_k − θ_base` of one tensor.

    Attributes:
        elements: how many each has.
        blocks: k → τ_k, block by block in their order, as often as it is asked for.
    """

    elements: int
    blocks: Callable[[int], Iterable[Tensor]]


Block = Callable[[Sequence[Tensor], Tensor | None, Sequence[Tensor] | None, Settings], Tensor]
"""(θ_k or τ_k, θ_base, Ω_k, settings) → merged, element by element; the task vectors may be changed."""

Thin = Callable[[int, Tensor], Tensor]
"""(k, a block of τ_k) → it with fewer elements, which may be itself, changed; once for each block, in their order."""


@dataclass(frozen=True)
class Method:
    """A way to merge.

    Attributes:
        name: as users write it.
        formula: in one line.
        paper: whose it is.
        block: merges a block of the elements of one tensor: all in one float dtype, which is also the result's.
        thin: how the task vectors lose elements first; where it is given, `block` gets these in the place of θ_k.
        needs_base: whether it needs the model that all were trained from.
        estimators: how the names of the estimators begin whose importance it takes; none for no importance.
        models: how many models it merges; None for any number from two on.
        defaults: the settings that it takes beside weights, with their defaults.
        signed: whether weights may be negative.
    """

    name: str
    formula: str
    paper: str
    block: Block
    thin: Callable[[Settings, TaskVectors], Thin] | None = None
    needs_base: bool = False
    estimators: tuple[str, ...] = ()
    models: int | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    signed: bool = True

    def fill(
        self,
        result: Tensor,
        versions: Sequence[Parts],
        base: Parts | None,
        omegas: Sequence[Parts] | None,
        settings: Settings,
    ) -> None:
        """Merge one tensor in K models, block by block, so that no other tensor of its size is needed.

        Args:
            result: flat; what is merged is written to it, in its type.
            versions: θ_k.
            base: θ_base.
            omegas: Ω_k ≥ 0.
            settings: what it is told.
        """
        blocks = [*slices(result.numel(), _BLOCK)]
        thin: Thin | None = None
        if self.thin is not None:
            assert base is not None
            start = base
            vectors = TaskVectors(result.numel(), lambda k: (versions[k](at) - start(at) for at in blocks))
            thin = self.thin(settings, vectors)
        for at in blocks:
            before = None if base is None else base(at)
            given = [each(at) for each in versions]
            if thin is not None and before is not None:
                given = [thin(k, each - before) for k, each in enumerate(given)]
            weighing = None if omegas is None else [each(at) for each in omegas]
            result[at] = self.block(given, before, weighing, settings).to(result.dtype)

    def merge(
        self, versions: Sequence[Tensor], base: Tensor | None, omegas: Sequence[Tensor] | None, settings: Settings
    ) -> Tensor:
        """`fill` of tensors in memory, all of one shape and type."""
        parts = [_in_memory(each) for each in versions]
        result = torch.empty_like(versions[0].reshape(-1))
        start = None if base is None else _in_memory(base)
        self.fill(result, parts, start, None if omegas is None else [_in_memory(each) for each in omegas], settings)
        return result.view(versions[0].shape)

    def told(self, models: int, weights: Sequence[float] | None = None, **given: Any) -> Settings:
        """The settings for that many models: the defaults, and what is given and not None.

        Args:
            models: how many are merged.
            weights: w_k, one a model; 1 each where None.
            given: fields of `Settings`; `density` may be one number for all models.

        Raises:
            ForgetlessError: too many or too few models or values, a setting it does not take, a value out of range.
        """
        self._refuse_count(models)
        given = {name: value for name, value in given.items() if value is not None}
        if extra := [name for name in given if name not in self.defaults]:
            there = ", ".join(self.defaults) or "none"
            raise ForgetlessError(
                f"the method {self.name!r} has no setting {quoted(extra[0])}; beside weights it has {there}."
            )
        if weights is not None and self.models == 1:
            raise ForgetlessError(
                f"the method {self.name!r} takes no weights; its setting is {', '.join(self.defaults)}."
            )
        found = {**self.defaults, **given}
        if "density" in found:
            found["density"] = _one_each("density", found["density"], models)
        settings = Settings(_one_each("weights", 1.0 if weights is None else weights, models), **found)
        self._check(settings)
        return settings

    def _refuse_count(self, models: int) -> None:
        if self.models is not None and models != self.models:
            raise ForgetlessError(f"the method {self.name!r} merges {self.models} model with its base, not {models}.")
        if models < 1 or (models == 1 and not self.needs_base):
            raise ForgetlessError(f"merging by {self.name!r} needs at least two models, not {models}.")

    def _check(self, settings: Settings) -> None:
        for value in settings.weights:
            if not math.isfinite(value) or (value < 0 and not self.signed):
                must = "finite" if self.signed else "a finite number of 0 or more"
                raise ForgetlessError(f"a weight must be {must} for {self.name!r}, not {value:g}.")
        if (settings.normalize or not self.signed) and math.isclose(sum(settings.weights), 0, abs_tol=1e-8):
            raise ForgetlessError(f"the weights add up to {sum(settings.weights):g}, by which nothing can be divided.")
        for value in settings.density:
            if not 0 < value <= 1:
                raise ForgetlessError(f"a density must be above 0 and at most 1, not {value:g}.")
        for sign, value in (("λ", settings.scale), ("α", settings.alpha)):
            if not math.isfinite(value):
                raise ForgetlessError(f"{sign} must be finite, not {value:g}.")
        for name, word, known in (
            ("majority", settings.majority, MAJORITIES),
            ("rescale", settings.rescale, RESCALES),
        ):
            if word not in known:
                raise ForgetlessError(f"{name} is {' or '.join(known)}, not {quoted(word)}.")


def _in_memory(tensor: Tensor) -> Parts:
    flat = tensor.reshape(-1)
    return lambda at: flat[at]


def _one_each(name: str, values: Any, models: int) -> tuple[float, ...]:
    given = (values,) * models if isinstance(values, (int, float)) else tuple(values)
    if len(given) != models:
        raise ForgetlessError(f"{name} has {len(given)} values for {models} models; give one for each.")
    if wrong := [each for each in given if isinstance(each, bool) or not isinstance(each, (int, float))]:
        raise ForgetlessError(f"{name} must be a number, not {quoted(wrong[0])}.")
    return tuple(float(each) for each in given)
