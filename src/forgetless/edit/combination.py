"""`Combination`: models of one architecture as one, tensor by tensor, whether they are in memory or on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from forgetless import files
from forgetless.edit.blocks import Parts
from forgetless.edit.checkpoint import finite
from forgetless.edit.merging import method_called
from forgetless.edit.versions import Weights, equal_in_all, mixed_types, refuse_differences
from forgetless.edit.weighing import Weighing
from forgetless.errors import ForgetlessError
from forgetless.measure.importance import Importance


@dataclass(frozen=True)
class Told:
    """What a merging did.

    Attributes:
        tensors: how many there are.
        by_method: how many of them were merged by the method.
        averaged: the names of those that it has no importance for, which got the weighted mean.
        copied: how many are integers, equal in all models.
    """

    tensors: int
    by_method: int
    averaged: tuple[str, ...]
    copied: int


class Combination:
    """A merge of checkpoints or state dicts, one tensor at a time; everything but the values is checked at once.

    Args:
        models: what to call each in a sentence → its weights.
        base: the same of the base.
        method: its name.
        weights: w_k, one a model; 1 each where None.
        importances: Ω_k.
        scale_importance: "mean" or "none".
        dtype: of the result.
        settings: the method's own.

    Attributes:
        method: the method.
        settings: what it is told.
        like: the weights that decide the names, order and dtypes of the result: the base's, or the first model's.

    Raises:
        ForgetlessError: models of different architectures, a method without what it needs or with what it does not
            use, settings out of range.
    """

    def __init__(
        self,
        models: Mapping[str, Weights],
        *,
        base: tuple[str, Weights] | None = None,
        method: str = "mean",
        weights: Sequence[float] | None = None,
        importances: Sequence[Importance] | None = None,
        scale_importance: str = "mean",
        dtype: torch.dtype | None = None,
        **settings: Any,
    ) -> None:
        self.method = method_called(method)
        self.settings = self.method.told(len(models), weights, **settings)
        if self.method.needs_base and base is None:
            raise ForgetlessError(f"the method {method!r} needs the base model that the others were trained from.")
        if base is not None and not self.method.needs_base:
            raise ForgetlessError(f"the method {method!r} uses no base model; leave it out.")
        if dtype is not None and dtype not in files.FLOATS:
            raise ForgetlessError(f"models are written in float16, bfloat16, float32 or float64, not {dtype}.")
        if bool(self.method.estimators) != bool(importances):
            must = (
                "needs an importance of each model" if self.method.estimators else "uses no importances; leave them out"
            )
            raise ForgetlessError(f"the method {method!r} {must}.")
        if not importances and scale_importance != "mean":
            raise ForgetlessError(f"the method {method!r} uses no importances, which could be scaled; leave that out.")
        self._models, self._base, self._dtype = dict(models), base, dtype
        self._every = dict([*([] if base is None else [base]), *models.items()])
        refuse_differences(self._every)
        self._omegas = (
            Weighing(importances, self._models, self.method.estimators, scale_importance) if importances else None
        )
        self.like: Weights = next(iter(self._every.values()))

    def tensor(self, name: str) -> Tensor:
        """The merged tensor of that name, in the dtype in which it is to be written.

        Raises:
            ForgetlessError: a version holds NaN or Inf, the merged one does not fit its dtype, or integers differ.
        """
        if self.how(name) == "copied":
            return equal_in_all(self._every, name)
        dtypes = {weights.layout[name].dtype for weights in self._every.values()}
        work = torch.float64 if torch.float64 in dtypes else torch.float32

        def wide(read: Parts) -> Parts:
            return lambda at: read(at).to(work)

        versions = [wide(each.parts(name)) for each in self._models.values()]
        base = None if self._base is None else wide(self._base[1].parts(name))
        omegas = None
        if self._omegas is not None and name in self._omegas:
            omegas = [wide(each) for each in self._omegas.parts(name)]
        layout, device = self.like.layout[name], versions[0](slice(0, 0)).device
        written = torch.empty(layout.elements, dtype=self._dtype or layout.dtype, device=device)
        self.method.fill(written, versions, base, omegas, replace(self.settings, tensor=name))
        if not finite(written):
            raise ForgetlessError(
                f"{name!r} would hold Inf in {str(written.dtype).removeprefix('torch.')}; choose a dtype of a wider "
                "range, or smaller weights."
            )
        return written.view(layout.shape)

    def how(self, name: str) -> str:
        """How that tensor comes about: "copied", "weighted mean" for want of importance, or the method's name."""
        if not all(weights.layout[name].dtype.is_floating_point for weights in self._every.values()):
            return "copied"
        return "weighted mean" if self._omegas is not None and name not in self._omegas else self.method.name

    def used(self) -> dict[str, Any]:
        """What decides the numbers beside the models, by name: the method's settings, weights and importances."""
        own = {name: getattr(self.settings, name) for name in self.method.defaults}
        if self.method.models != 1:
            own["weights"] = self.settings.weights
        if self._omegas is not None:
            own["importances"] = self._omegas.mark()
        return own

    def note(self) -> str | None:
        """What is done where the models hold tensors in different types; None where they do not."""
        if (what := mixed_types({title: each.layout for title, each in self._every.items()})) is None:
            return None
        types = f"the types of {next(iter(self._every))}" if self._dtype is None else str(self._dtype).split(".")[-1]
        return f"{what}: they are merged in the widest type (float32 at least) and written in {types}."

    def told(self) -> Told:
        """What it does, without reading a tensor."""
        how = {name: self.how(name) for name in self.like.layout}
        averaged = tuple(name for name, each in how.items() if each == "weighted mean")
        copied = sum(each == "copied" for each in how.values())
        return Told(len(how), len(how) - len(averaged) - copied, averaged, copied)
