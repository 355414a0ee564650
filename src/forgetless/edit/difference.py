"""Δ = tuned − base of one weight as a matrix: its spectrum, and the part of it that reaches above a threshold.

A thin SVD of Δ [long, short] costs several times its Gram matrix `ΔᵀΔ` [short, short] and the eigenvalues of that,
which are the squared singular values; the eigenvectors are the right singular vectors V, and what is kept is
`Δ V_k V_kᵀ`. In float64 an eigenvalue is exact to a bound that is known; where a singular value lies so near the
threshold that the bound does not say on which side, the SVD decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from forgetless.edit.blocks import long_first, rows, width
from forgetless.edit.noise import median_of_noise, rounding, threshold_by_median
from forgetless.edit.spectrum import Spectrum
from forgetless.errors import ForgetlessError


@dataclass(frozen=True)
class Cut:
    """What a threshold does to a spectrum.

    Attributes:
        sigma: σ̂, the standard deviation of the noise per entry.
        threshold: τ; singular values above it are kept.
        total: how many singular values there are.
        kept: how many are kept.
        energy: the share of ‖Δ‖² that is kept.
        rounding: the standard deviation that storing the tuned weights in their type has given each entry.
    """

    sigma: float
    threshold: float
    total: int
    kept: int
    energy: float
    rounding: float

    @property
    def everything(self) -> bool:
        """Whether nothing is removed."""
        return self.kept == self.total or self.threshold == 0


class Difference:
    """Δ, or `m ⊙ Δ` for a metric m, of two versions of a weight.

    Args:
        base: [o, i], or a convolution's [o, i, h, w].
        tuned: the same shape.
        metric: m > 0, the same shape; None is 1 everywhere.
        rank: the most singular values that are not 0, where that is known (of an adapter); None: all.
        device: where it is computed.
    """

    def __init__(
        self,
        base: Tensor,
        tuned: Tensor,
        metric: Tensor | None = None,
        rank: int | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self._base, self._tuned = long_first(base), long_first(tuned)
        self._metric = None if metric is None else long_first(metric)
        self._rank, self._device = rank, device
        self._wide = width(base, tuned)
        self._stored = tuned.dtype

    @property
    def beta(self) -> float:
        """β = short/long."""
        long, short = self._tuned.shape
        return short / long

    def slices(self) -> Iterator[slice]:
        """The rows, in blocks."""
        return rows(self._tuned)

    def block(self, at: slice) -> Tensor:
        """Rows of `m ⊙ Δ`, in float32 or wider."""
        delta = self._rows(self._tuned, at) - self._rows(self._base, at)
        return delta if self._metric is None else delta * self._rows(self._metric, at)

    def _rows(self, matrix: Tensor, at: slice) -> Tensor:
        return matrix[at].to(self._device, self._wide)

    def cut(self, scale: float) -> tuple[Cut, Tensor]:
        """Donoho and Gavish's threshold `τ = scale · ω(β) · median(S)`, and the right singular vectors above it.

        Returns:
            What it does, and V_k [short, kept] in float64; [short, 0] where everything is kept.
        """
        long, short = self._tuned.shape
        gram, spread = self._gram()
        if not bool(torch.isfinite(gram.diagonal()).all()):  # no element is larger than the largest of these
            raise ForgetlessError("the squares of its change are too large for float64.")
        spectrum = Spectrum(gram)
        del gram
        squares, vectors = spectrum.values.clamp(min=0), spectrum.vectors
        unsure = float(squares.sum()) * long * torch.finfo(torch.float64).eps
        counted = squares[: self._rank]
        median = float(_middle(counted.sqrt()))
        threshold = scale * threshold_by_median(self.beta) * median
        kept = int((counted > threshold * threshold).sum())
        if median * median <= unsure or bool(((counted - threshold * threshold).abs() <= unsure).any()):
            del spectrum, vectors
            values, rights, median = self._by_svd()
            threshold = scale * threshold_by_median(self.beta) * median
            squares, vectors = values.square(), lambda count: rights[:, :count]
            if median <= float(values[0]) * long * torch.finfo(torch.float64).eps:
                threshold = 0.0  # fewer directions than half: nothing but the rounding of float64 is below
            kept = int((values[: self._rank] > threshold).sum())
        energy = float(squares[:kept].sum() / squares.sum())
        sigma = median / (median_of_noise(self.beta) * long**0.5)
        total = short if self._rank is None else min(self._rank, short)
        cut = Cut(sigma, threshold, total, kept, energy, spread)
        return cut, vectors(0 if cut.everything else kept)

    def _gram(self) -> tuple[Tensor, float]:
        """`(m ⊙ Δ)ᵀ(m ⊙ Δ)` in float64, and the standard deviation of the tuned weight's rounding."""
        long, short = self._tuned.shape
        gram = torch.zeros(short, short, dtype=torch.float64, device=self._device)
        noise = torch.zeros((), dtype=torch.float64, device=self._device)
        for at in self.slices():
            delta = self.block(at).double()
            gram.addmm_(delta.T, delta)
            noise += rounding(self._rows(self._tuned, at), self._stored)
        return gram, float((noise / (long * short)).sqrt())

    def _by_svd(self) -> tuple[Tensor, Tensor, float]:
        """The singular values, V and the median by the SVD of Δ in float64."""
        whole = torch.cat([self.block(at).double() for at in self.slices()])
        _, values, rights = torch.linalg.svd(whole, full_matrices=False)
        return values, rights.T, float(_middle(values[: self._rank]))

    def kept(self, vectors: Tensor, like: Tensor) -> Tensor:
        """`base + (m ⊙ Δ) V_k V_kᵀ / m`, with the shape and type of `like`."""
        result = torch.empty(like.shape, dtype=like.dtype)
        target = long_first(result)
        right = vectors.to(self._wide)
        for at in self.slices():
            part = (self.block(at) @ right) @ right.T
            if self._metric is not None:
                part /= self._rows(self._metric, at)
            target[at] = (self._rows(self._base, at) + part).to("cpu", like.dtype)
        return result


def _middle(values: Tensor) -> Tensor:
    """The median; of an even number of values the mean of the middle two, where torch's takes the lower."""
    ordered, count = values.sort().values, len(values)
    return (ordered[(count - 1) // 2] + ordered[count // 2]) / 2


def largest(base: Tensor, tuned: Tensor) -> float:
    """The largest |Δ|."""
    difference = Difference(base, tuned)
    return max((float(difference.block(at).abs().max()) for at in difference.slices()), default=0.0)
