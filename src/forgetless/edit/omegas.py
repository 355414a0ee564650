"""Ω beside a checkpoint's tensors: found by name, divided by its mean."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping

from torch import Tensor

from forgetless import files
from forgetless.edit.blocks import Parts, slices
from forgetless.edit.checkpoint import Checkpoint
from forgetless.errors import ForgetlessError
from forgetless.measure.importance import Importance
from forgetless.model.parameters import fingerprint, listing


class Omegas:
    """Ω̂ = Ω / mean Ω of a checkpoint's weights, the mean over all elements that were measured.

    Args:
        importance: Ω; None for none at all.
        layout: the checkpoint's tensors by name.

    Raises:
        ForgetlessError: it is of another network: no tensor has its names, one has another shape, or all of Ω is 0.
    """

    def __init__(self, importance: Importance | None, layout: Mapping[str, files.Layout]) -> None:
        self._importance = importance
        self._mean = 1.0
        if importance is None:
            return
        sums = importance.sums
        common = [name for name in sums if name in layout]
        shapes = [name for name in common if tuple(sums[name].shape) != layout[name].shape]
        if not common or shapes:
            what = f"{listing(shapes)} have other shapes" if shapes else f"it has {listing(sums)}, which are not there"
            raise ForgetlessError(f"the importance is of another network than the checkpoint: {what}.")
        flats = [each.reshape(-1) for each in sums.values()]
        total = sum(float(flat[at].double().sum()) for flat in flats for at in slices(len(flat)))
        self._mean = total / importance.count / sum(each.numel() for each in sums.values())
        if not self._mean:
            raise ForgetlessError("the importance is 0 everywhere; measure it on samples that reach the weights.")

    def of(self, name: str) -> Tensor | None:
        """Ω̂ of a weight in float32; None where it was not measured."""
        if self._importance is None or name not in self._importance.sums:
            return None
        return (self._importance.sums[name] / (self._importance.count * self._mean)).float()

    def parts(self, name: str, scaled: bool) -> Parts:
        """Ω̂ of a weight that was measured, in parts; Ω itself where it is not to be scaled."""
        assert self._importance is not None
        flat, scale = self._importance.sums[name].reshape(-1), self._importance.count * (self._mean if scaled else 1)
        return lambda at: flat[at] / scale

    def mark(self) -> str:
        """What tells this importance from others."""
        if self._importance is None:
            return "none"
        marks = sorted((name, fingerprint(each)) for name, each in self._importance.sums.items())
        return hashlib.sha256(repr((marks, self._importance.count)).encode()).hexdigest()[:16]

    def warn_elsewhere(self, checkpoint: Checkpoint) -> None:
        """Warn where Ω was measured at other weights than the checkpoint's."""
        if self._importance is None:
            return
        marks = self._importance.weights
        known = [name for name in checkpoint.layout if name in marks]
        if changed := [name for name in known if fingerprint(checkpoint.tensor(name)) != marks[name]]:
            warnings.warn(
                f"the importance was not measured at the weights of {checkpoint.path}: {listing(changed)} differ.",
                stacklevel=3,
            )
