"""The core: the most important part of a network, as a boolean mask for every parameter.

Wan and Zhao, "Efficient Task Adaptation in Large Language Models via Selective Parameter Optimization", IJCNN,
arXiv 2604.17051, keep `{i : I_i ≥ θ}` with one threshold for the whole network and do not say how large it is. Here the
share is given, and the threshold follows from it, exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor

from forgetless.errors import ForgetlessError
from forgetless.measure.importance import Importance, refuse_mismatch
from forgetless.model.parameters import listing
from forgetless.model.sharding import is_sharded

Granularity = Literal["element", "row", "tensor"]
Scope = Literal["global", "tensor"]

_PIECE = 1 << 22  # elements that are looked at together: what the search for the threshold takes beside its counts
_DIGIT = 16  # bits of a number that are found in one pass


def core_masks(
    importance: Importance,
    keep: float = 0.3,
    granularity: Granularity = "element",
    *,
    scope: Scope = "global",
    against: Importance | None = None,
    damping: float = 1.0,
) -> dict[str, Tensor]:
    """Choose the most important `keep` of the elements that an importance covers.

    The score of an element is its importance I; of a row or a tensor the mean of I over it. With `against` it is

        I / (I' + damping · mean I')

    with I' of the other data and its mean over all elements. Units are taken in order of their score; what has the same
    score in order of position. Exactly `keep` of the elements are chosen (rounded to a whole number); of rows and
    tensors as many as fit in: one that does not fit any more is passed over.

    The result is a mask as `torch.nn.utils.prune.custom_from_mask` takes it: `masks["0.weight"]` prunes all but the
    core, `~masks["0.weight"]` the core.

    Args:
        importance: what matters to what is to be kept.
        keep: the share of the elements in the core, 0 to 1.
        granularity: what is chosen as a whole: single elements, rows (slices along the first dimension: an output
            neuron, a filter, a token's embedding), or whole parameters. A mask of rows or tensors takes no memory for
            its elements.
        scope: "global" compares the elements of all parameters, as the paper does; "tensor" takes the share in each.
        against: what matters to the new data; then the core matters to the old more than to the new. Our reading of
            the paper's abstract; the method in its text uses the general importance alone.
        damping: how much of the mean of I' is added to it, above 0. The larger, the less I' counts.

    Returns:
        Parameter name → boolean mask of the parameter's shape, true in the core.

    Raises:
        ForgetlessError: a share out of range, another granularity or scope, an importance that is sharded, or one
            `against` that is of other parameters or 0 everywhere.
    """
    _refuse(importance, keep, granularity, scope, against, damping)
    scores = _Scores(importance, against, damping)
    found = _elements(scores, keep, scope) if granularity == "element" else _units(scores, keep, granularity, scope)
    return {name: found[name] for name in importance.sums}


class _Scores:
    """The scores of elements, in pieces; and the means of rows and tensors."""

    def __init__(self, importance: Importance, against: Importance | None, damping: float) -> None:
        self.sums, self.other = importance.sums, None if against is None else against.sums
        self._count, self._others = importance.count, 1.0 if against is None else against.count
        self.floor = 0.0
        if against is not None:
            total = math.fsum(float(sums.sum(dtype=torch.float64)) for sums in against.sums.values())
            self.floor = damping * total / against.count / sum(sums.numel() for sums in against.sums.values())
        wide = against is not None or any(sums.dtype == torch.float64 for sums in self.sums.values())
        self.dtype = torch.float64 if wide else torch.float32

    def pieces(self, name: str) -> Iterator[tuple[int, Tensor]]:
        """Where each piece of a parameter begins, and its scores as integers of the same order."""
        flat = self.sums[name].reshape(-1)
        other = None if self.other is None else self.other[name].reshape(-1)
        for start in range(0, flat.numel(), _PIECE):
            part = flat[start : start + _PIECE].to(self.dtype)
            if other is not None:
                part = self._ratio(part, other[start : start + _PIECE].to(part))
            # Of floats of 0 or more the bits are in the order of the numbers; abs() makes −0 a 0.
            yield start, part.abs().view(torch.int64 if self.dtype == torch.float64 else torch.int32)

    def means(self, name: str, granularity: Granularity) -> Tensor:
        """The score of each unit of a parameter, `[units]`, float64 on the CPU."""
        rows = _rows(self.sums[name], granularity).mean(1, dtype=torch.float64).cpu()
        if self.other is None:
            return rows
        return self._ratio(rows, _rows(self.other[name], granularity).mean(1, dtype=torch.float64).cpu())

    def _ratio(self, part: Tensor, other: Tensor) -> Tensor:
        return (part / self._count) / (other / self._others + self.floor)


def _rows(tensor: Tensor, granularity: Granularity) -> Tensor:
    units = 1 if granularity == "tensor" or not tensor.dim() else tensor.shape[0]
    return tensor.reshape(units, tensor.numel() // max(1, units))


def _elements(scores: _Scores, keep: float, scope: Scope) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for names in _scopes(scores, scope):
        wanted = _share(keep, sum(scores.sums[name].numel() for name in names))
        threshold, ties = _threshold(scores, names, wanted)
        for name in names:
            sums = scores.sums[name]
            mask = torch.empty(sums.numel(), dtype=torch.bool, device=sums.device)
            for start, bits in scores.pieces(name):
                above = bits > threshold
                if ties:
                    equal = (bits == threshold).nonzero().squeeze(1)[:ties]
                    above[equal] = True
                    ties -= len(equal)
                mask[start : start + len(bits)] = above
            found[name] = mask.view(sums.shape)
    return found


def _threshold(scores: _Scores, names: list[str], wanted: int) -> tuple[int, int]:
    """The bits of the smallest score in the core, and how many of the scores that equal it belong to that.

    Found digit by digit from counts, in as many passes as a number has digits of 16 bits: nothing is sorted.
    """
    width = 64 if scores.dtype == torch.float64 else 32
    if not wanted:
        return (1 << (width - 1)) - 1, 0  # above every number
    prefix, left = 0, wanted
    for shift in range(width - _DIGIT, -1, -_DIGIT):
        counts = torch.zeros(1 << _DIGIT, dtype=torch.int64)
        for name in names:
            for _, bits in scores.pieces(name):
                if shift < width - _DIGIT:
                    bits = bits[(bits >> (shift + _DIGIT)) == prefix]
                digits = (bits >> shift) & ((1 << _DIGIT) - 1)
                counts += torch.bincount(digits, minlength=1 << _DIGIT).cpu()
        from_top = counts.flip(0).cumsum(0)
        place = int(torch.searchsorted(from_top, left))
        digit = len(counts) - 1 - place
        left -= int(from_top[place] - counts[digit])
        prefix = prefix << _DIGIT | digit
    return prefix, left


def _units(scores: _Scores, keep: float, granularity: Granularity, scope: Scope) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for names in _scopes(scores, scope):
        wanted = _share(keep, sum(scores.sums[name].numel() for name in names))
        means = {name: scores.means(name, granularity) for name in names}
        sizes = [
            torch.full((len(means[name]),), scores.sums[name].numel() // max(1, len(means[name]))) for name in names
        ]
        chosen = _fitting(torch.cat([means[name] for name in names]), torch.cat(sizes), wanted)
        for name, mine in zip(names, torch.split(chosen, [len(means[name]) for name in names]), strict=True):
            sums = scores.sums[name]
            shape = (-1, *(1,) * (sums.dim() - 1)) if granularity == "row" and sums.dim() else (1,) * sums.dim()
            found[name] = mine.to(sums.device).view(shape).expand(sums.shape)
    return found


def _fitting(scores: Tensor, sizes: Tensor, room: int) -> Tensor:
    """Which units are chosen: the best first, each that still fits."""
    order = torch.sort(scores, descending=True, stable=True).indices
    chosen = torch.zeros(len(scores), dtype=torch.bool)
    while len(order := order[sizes[order] <= room]):
        taken = order[sizes[order].cumsum(0) <= room]
        chosen[taken] = True
        room -= int(sizes[taken].sum())
        order = order[len(taken) :]
    return chosen


def _scopes(scores: _Scores, scope: Scope) -> list[list[str]]:
    """The names that are compared with one another."""
    names = list(scores.sums)
    return [[name] for name in names] if scope == "tensor" else [names]


def _share(keep: float, count: int) -> int:
    return min(count, math.floor(keep * count + 0.5))


def _refuse(
    importance: Importance,
    keep: float,
    granularity: str,
    scope: str,
    against: Importance | None,
    damping: float,
) -> None:
    if not isinstance(importance, Importance):
        raise ForgetlessError(f"an importance is what forgetless.mas returns, not {type(importance).__name__}.")
    if not isinstance(keep, int | float) or not 0 <= keep <= 1:
        raise ForgetlessError(f"keep is the share of the elements in the core, 0 to 1, not {keep!r}.")
    if granularity not in ("element", "row", "tensor"):
        raise ForgetlessError(f"granularity must be 'element', 'row' or 'tensor', not {granularity!r}.")
    if scope not in ("global", "tensor"):
        raise ForgetlessError(f"scope must be 'global' or 'tensor', not {scope!r}.")
    if granularity == "tensor" == scope:
        raise ForgetlessError(
            "scope='tensor' takes a share of every tensor, so granularity must be 'element' or 'row'."
        )
    _refuse_sharded(importance.sums)
    if against is not None:
        if not (math.isfinite(damping) and damping > 0):
            raise ForgetlessError(f"damping must be a finite number above 0, not {damping!r}.")
        refuse_mismatch(against.sums, importance.sums, "the importance in against=", "the other one")
        _refuse_sharded(against.sums)
        if not any(bool(sums.any()) for sums in against.sums.values()):
            raise ForgetlessError("the importance in against= is 0 everywhere, so that it has no scale.")


def _refuse_sharded(sums: Mapping[str, Tensor]) -> None:
    if split := [name for name, each in sums.items() if is_sharded(each)]:
        raise ForgetlessError(f"the importance of {listing(split)} is sharded over processes; use importance.whole().")
