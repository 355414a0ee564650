"""`Importance`: what a measurement found, as pure data. No model inside."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from forgetless import files
from forgetless.errors import ForgetlessError
from forgetless.measure.confidence import Confidence
from forgetless.measure.sharing import Shared
from forgetless.model import sharding
from forgetless.model.parameters import listing, matches, patterns_of, trainable, unwrapped, within


@dataclass(frozen=True)
class Importance(Shared):
    """Sums over samples of each parameter's sensitivity, and how many samples they are over.

    `Ω = sums / count`. Keeping the sums makes pooling exact: any split of the samples, merged in any order, gives the
    same numbers up to rounding.

    Attributes:
        sums: parameter name → `Σ_n |g_n|`, the parameter's shape, float32 or wider.
        count: how many samples; fractional after a decay.
        estimator: what was measured ("mas", …); only equal ones merge.
        weights: parameter name → fingerprint of the weights it was measured at.
        unused: parameters that took no part in the output, for which Ω = 0.
        confidence: how the batches differed, where it was measured with `until=`; `error` and `overlap` need it.
    """

    sums: dict[str, Tensor]
    count: float
    estimator: str = "mas"
    weights: dict[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    confidence: Confidence | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.count) and self.count > 0):
            raise ForgetlessError(f"an importance needs a positive count of samples, not {self.count}.")
        for name, tensor in self.sums.items():
            if not torch.is_floating_point(tensor):
                raise ForgetlessError(f"the importance of {name!r} is {tensor.dtype}, not a float tensor.")
            held = sharding.local(tensor)
            low, high = torch.aminmax(held) if held.numel() else (held.new_zeros(()),) * 2  # NaN comes through
            if not (bool(low >= 0) and bool(high < math.inf)):
                raise ForgetlessError(f"the importance of {name!r} holds NaN, Inf or negative values.")

    def __repr__(self) -> str:
        elements = sum(each.numel() for each in self.sums.values())
        return (
            f"Importance(estimator={self.estimator!r}, count={self.count:g}, "
            f"{elements:,} weights of {len(self.sums)} parameters)"
        )

    def mean(self) -> dict[str, Tensor]:
        """Ω of Eq. 2: parameter name → `1/N Σ_n |g_n|`, the parameter's shape."""
        return {name: total / self.count for name, total in self.sums.items()}

    def error(self) -> dict[str, float]:
        """How far Ω is likely to be off: the standard error of its mean, `√(Σ se²) / ‖Ω‖`, by parameter.

        0.05 says that Ω is within about 5 % (in the Euclidean norm) of what endless data of the same kind would give.

        Raises:
            ForgetlessError: it was measured without `until=`.
        """
        return self._sure().error(self.sums, self.count)

    def overlap(self, top: float = 0.1) -> float:
        """The share of the `top` most important weights (by Ω, of all) that endless data would put there as well.

        Raises:
            ForgetlessError: it was measured without `until=`, or in a single batch, or `top` is no share.
        """
        return self._sure().overlap(self.sums, self.count, top)

    def _sure(self) -> Confidence:
        if self.confidence is None:
            raise ForgetlessError("this importance has no standard error: measure it with until=.")
        return self.confidence

    def merge(self, *others: Importance) -> Importance:
        """Pool samples of one task: sums and counts add. Neither operand is changed.

        Where they were measured at different weights, a warning says so.

        Args:
            others: measurements of the same parameters of the same network by the same estimator.

        Raises:
            ForgetlessError: other names, shapes or another estimator, or only one of them is sharded.
        """
        sums = {name: total.clone() for name, total in self.sums.items()}
        count, unused, confidence = self.count, set(self.unused), self.confidence
        for other in others:
            if other.estimator != self.estimator:
                raise ForgetlessError(
                    f"an importance by {self.estimator!r} cannot be merged with one by {other.estimator!r}."
                )
            refuse_mismatch(other.sums, sums, "the other importance", "this one")
            if changed := [n for n in self.weights if other.weights.get(n, self.weights[n]) != self.weights[n]]:
                warnings.warn(
                    f"importances that were measured at different weights ({listing(changed)}) are pooled: their Ω is "
                    "a mean over several networks; measure anew unless that is meant.",
                    stacklevel=2,
                )
            if split := [n for n in sums if sharding.is_sharded(sums[n]) != sharding.is_sharded(other.sums[n])]:
                raise ForgetlessError(
                    f"one importance is sharded over processes and the other is not, in {listing(split)}; bring both "
                    "to one form first: .sharded_like(model), or .whole()."
                )
            for name, total in other.sums.items():
                dtype = torch.promote_types(total.dtype, sums[name].dtype)
                sums[name] = sums[name].to(dtype).add_(total.to(sums[name].device))
            count += other.count
            unused &= set(other.unused)
            confidence = confidence.merge(other.confidence) if confidence and other.confidence else None
        kept = tuple(name for name in self.unused if name in unused)
        return replace(self, sums=sums, count=count, unused=kept, confidence=confidence)

    def faded(self, gamma: float) -> Importance:
        """The same with less weight where it is merged: `γ · sums` and `γ · count`; its Ω stays what it is.

        `older.faded(γ).merge(newer)` forgets what was measured long ago: after K such steps it counts γ^K times.

        Args:
            gamma: γ in (0, 1].

        Raises:
            ForgetlessError: γ out of range.
        """
        if not 0 < gamma <= 1:
            raise ForgetlessError(f"gamma must be above 0 and at most 1, not {gamma!r}.")
        sums = {name: total * gamma for name, total in self.sums.items()}
        # How the batches differed is not known of samples that count in part.
        return self if gamma == 1 else replace(self, sums=sums, count=self.count * gamma, confidence=None)

    def without(self, exclude: str | Iterable[str]) -> Importance:
        """The same without some parameters, which are free then: a head that was replaced since, for one.

        Args:
            exclude: names, module names ("head") or patterns ("*.bias").

        Raises:
            ForgetlessError: a pattern that matches nothing, or nothing that is left.
        """
        patterns = patterns_of(exclude)
        for pattern in patterns:
            if not any(matches(name, pattern) for name in self.sums):
                raise ForgetlessError(f"{pattern!r} matches no parameter of the importance: {listing(self.sums)}.")
        kept = [name for name in self.sums if not any(matches(name, pattern) for pattern in patterns)]
        if not kept:
            raise ForgetlessError(f"without {', '.join(map(repr, patterns))} the importance has no parameter left.")

        def rest(found: Mapping[str, Any]) -> dict[str, Any]:
            return {name: found[name] for name in kept if name in found}

        confidence = self.confidence
        if confidence is not None:
            confidence = replace(confidence, squares=rest(confidence.squares), half=rest(confidence.half))
        unused = tuple(rest(dict.fromkeys(self.unused)))
        return replace(self, sums=rest(self.sums), weights=rest(self.weights), unused=unused, confidence=confidence)

    def whole(self) -> Importance:
        """The same with no sum sharded; where one is, every rank must ask for it, and gets all of it."""
        sums = {name: sharding.whole(total) for name, total in self.sums.items()}
        return replace(self, sums=sums, confidence=None if self.confidence is None else self.confidence.whole())

    def sharded_like(self, parameters: nn.Module | Mapping[str, Tensor]) -> Importance:
        """The same, sharded as FSDP2 has sharded a model, for its anchor; what is sharded already stays as it is.

        Every rank must hold the whole importance, as `load` gives it. Nothing is sent.

        Args:
            parameters: the model, or its parameters by name.
        """
        if isinstance(parameters, nn.Module):
            parameters = trainable(sharding.resharded(unwrapped(parameters)))

        def placed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {n: sharding.sharded_like(t, parameters[n]) if n in parameters else t for n, t in tensors.items()}

        confidence = None if self.confidence is None else replace(self.confidence, half=placed(self.confidence.half))
        return replace(self, sums=placed(self.sums), confidence=confidence)

    def save(self, path: str | Path) -> None:
        """Write the file `path` (safetensors), whole or not at all; its header holds all that is not a tensor.

        Where the sums are sharded every rank must call it: the first one writes them whole.

        Raises:
            ForgetlessError: the file cannot be written.
        """
        header: dict[str, Any] = {
            "estimator": self.estimator,
            "count": self.count,
            "weights": self.weights,
            "unused": list(self.unused),
        }
        tensors = self.sums
        if self.confidence is not None:
            header["confidence"], halves = self.confidence.state()
            tensors = {**tensors, **halves}
        files.write_tensors(path, tensors, "importance", header)

    @classmethod
    def load(cls, path: str | Path, *, mmap: bool = False) -> Importance:
        """Read what `save` wrote.

        Args:
            path: the file.
            mmap: leave the sums in the file, from where an anchor reads them once, instead of in memory. The file must
                not be changed in place as long as the importance is used.

        Raises:
            ForgetlessError: the file is missing, cut, damaged or holds something else.
        """
        tensors, header = files.read_tensors(path, "importance", dtypes=files.FLOATS, mmap=mmap)
        tensors = files.MappedTensors(tensors, path) if mmap else tensors
        noted: _Header = files.decoded(header, _Header, path)
        try:
            found = noted.confidence
            confidence = None if found is None else Confidence.restored(found, tensors)
            return cls(tensors, noted.count, noted.estimator, noted.weights, noted.unused, confidence)
        except ForgetlessError as error:
            raise ForgetlessError(f"{path} is damaged: {error}") from error


@dataclass(frozen=True)
class _Header:
    """What an importance's file says of itself; see `Importance`."""

    estimator: str
    count: float
    weights: dict[str, str]
    unused: tuple[str, ...]
    confidence: dict[str, Any] | None = None


def refuse_mismatch(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], whose: str, of: str) -> None:
    """Refuse `found` unless it has exactly the names and shapes of `expected`.

    Raises:
        ForgetlessError: naming what is missing, what is too many and which shapes differ.
    """
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    shapes = [
        f"{name} {tuple(found[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected
        if name in found and found[name].shape != expected[name].shape
    ]
    if missing or extra or shapes:
        parts = [
            f"lacks {listing(missing)}" if missing else "",
            f"has {listing(extra)} besides" if extra else "",
            f"differs in shape: {'; '.join(shapes[:6])}" if shapes else "",
        ]
        raise ForgetlessError(f"{whose} does not fit {of}: it {', '.join(part for part in parts if part)}.")


def refuse_another(importance: Importance, parameters: Mapping[str, Tensor]) -> None:
    """Refuse an importance with names or shapes that are not the model's; it may have fewer.

    Args:
        importance: to protect the model by.
        parameters: the model's, by name.

    Raises:
        ForgetlessError: naming what differs, and the way out where the rest fits: it is of a part of the model, or of
            the model with another head.
    """
    found = importance.sums
    try:
        refuse_mismatch(found, {n: parameters[n] for n in found if n in parameters}, "the importance", "the model")
    except ForgetlessError as error:
        raise ForgetlessError(f"{str(error).removesuffix('.')}{_way_out(found, parameters)}.") from None


def _way_out(found: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> str:
    if not any(name in parameters for name in found):
        shaped = {
            name for name, total in parameters.items() if any(total.shape == each.shape for each in found.values())
        }
        inside = within(found, shaped)
        return f"; it is of the model's part {inside[:-1]!r}: anchor that part" if inside else ""
    other = [name for name in found if name not in parameters or found[name].shape != parameters[name].shape]
    parts = list(dict.fromkeys(name.rpartition(".")[0] or name for name in other))
    if len(other) == len(found) or len(parts) > 3:
        return ""
    left = repr(parts[0]) if len(parts) == 1 else repr(parts)
    return f"; a part that was replaced is free if the importance has none of it: importance.without({left})"
