"""The eigenvalues of a Gram matrix `ΔᵀΔ` first, then the eigenvectors of the largest alone.

With SciPy the matrix's own memory is enough: LAPACK reduces it in place to a tridiagonal one, `G = Q T Qᵀ` (sytrd),
whose eigenvalues (sterf) say how many eigenvectors are wanted; those are found of T (stebz, stein) and multiplied by Q,
which lies where G was (ormqr). Without SciPy, and on a device, it is torch's `eigh` with all eigenvectors, which takes
three times as much memory beside the matrix. Both are backward stable, so the same bound holds for the eigenvalues.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor

_SMALL = 32  # rows below which nothing is gained


class Spectrum:
    """Eigenvalues and the leading eigenvectors of a symmetric matrix.

    Args:
        gram: [n, n], float64; it is overwritten.

    Attributes:
        values: its eigenvalues [n], the largest first.
    """

    def __init__(self, gram: Tensor) -> None:
        self._vectors: Tensor | None = None
        if gram.device.type == "cpu" and len(gram) >= _SMALL and importlib.util.find_spec("scipy") is not None:
            self._reduced = _Tridiagonal(gram)
            self.values = self._reduced.values()
        else:
            self.values, self._vectors = (each.flip(-1) for each in torch.linalg.eigh(gram))

    def vectors(self, count: int) -> Tensor:
        """The eigenvectors of the `count` largest eigenvalues, in that order: [n, count], orthonormal."""
        return self._reduced.vectors(count) if self._vectors is None else self._vectors[:, :count]


class _Tridiagonal:
    """`G = Q T Qᵀ` in the memory of G: below its diagonal the reflectors that Q is the product of."""

    def __init__(self, gram: Tensor) -> None:
        from scipy.linalg import lapack

        held = gram.numpy().T  # in LAPACK's order of columns, without a copy; G is symmetric
        work = int(lapack.dsytrd_lwork(len(held), lower=1)[0])
        self._held, self._diagonal, self._beside, self._scales, _ = lapack.dsytrd(
            held, lower=1, lwork=work, overwrite_a=1
        )

    def values(self) -> Tensor:
        """The eigenvalues, the largest first."""
        from scipy.linalg import eigh_tridiagonal

        found = eigh_tridiagonal(self._diagonal, self._beside, eigvals_only=True, lapack_driver="sterf")
        return torch.from_numpy(found).flip(0)

    def vectors(self, count: int) -> Tensor:
        """`Q Z` with Z the eigenvectors of T."""
        from scipy.linalg import eigh_tridiagonal, lapack

        size = len(self._diagonal)
        if count == 0:
            return torch.empty(size, 0, dtype=torch.float64)
        last: Any = (size - count, size - 1)
        _, found = eigh_tridiagonal(self._diagonal, self._beside, select="i", select_range=last, lapack_driver="stebz")
        # Q leaves the first row alone. Its reflectors begin one element behind the start of G, a column each; read with
        # G's own stride, a column ends with an element of the first row, which belongs to none of them.
        self._held[0, 1:] = 0
        columns = self._held.reshape(-1, order="F")[1 : 1 + size * (size - 1)].reshape(size, size - 1, order="F")
        turned = torch.zeros(count, size, dtype=torch.float64).numpy().T
        turned[:-1] = found[1:]
        work = int(lapack.dormqr("L", "N", columns, self._scales, turned, -1)[1][0])
        turned = lapack.dormqr("L", "N", columns, self._scales, turned, work, overwrite_c=1)[0]
        found[1:] = turned[:-1]
        return torch.from_numpy(found[:, ::-1].copy())
