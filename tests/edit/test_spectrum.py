"""Eigenvalues and leading eigenvectors in the matrix's own memory, against torch's full decomposition."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from forgetless.edit import spectrum
from forgetless.edit.spectrum import Spectrum


def gram(size: int, rank: int, seed: int) -> Tensor:
    """Of a matrix with large and small singular values, some of them equal."""
    draw = torch.Generator().manual_seed(seed)
    delta = torch.randn(2 * size, rank, generator=draw, dtype=torch.float64)
    delta = delta @ torch.randn(rank, size, generator=draw, dtype=torch.float64)
    delta[:size] += torch.eye(size, dtype=torch.float64)
    return delta.T @ delta


@given(
    size=st.sampled_from([1, 2, 31, 32, 33, 70]), rank=st.integers(0, 3), seed=st.integers(0, 3), share=st.floats(0, 1)
)
def test_it_is_what_a_full_decomposition_gives(size: int, rank: int, seed: int, share: float) -> None:
    matrix = gram(size, rank, seed)
    values, vectors = (each.flip(-1) for each in torch.linalg.eigh(matrix))
    got = Spectrum(matrix.clone())
    largest = float(values[0])
    assert torch.allclose(got.values, values, rtol=0, atol=1e-13 * size * largest)
    count = round(share * size)
    found = got.vectors(count)
    assert found.shape == (size, count)
    assert torch.allclose(found.T @ found, torch.eye(count, dtype=torch.float64), atol=1e-11)
    assert torch.allclose(matrix @ found, found * values[:count], rtol=0, atol=1e-13 * size * largest)
    if 0 < count < size and values[count - 1] - values[count] > 1e-3 * largest:  # the space is well defined
        want = vectors[:, :count] @ vectors[:, :count].T
        assert torch.allclose(found @ found.T, want, atol=1e-9)


@pytest.mark.parametrize("kind", ["zero", "identity", "blocks"])
def test_matrices_that_fall_apart(kind: str) -> None:
    matrix = torch.zeros(40, 40, dtype=torch.float64)
    if kind != "zero":
        matrix += torch.eye(40, dtype=torch.float64)
    if kind == "blocks":
        matrix[:3, :3] += 1
        matrix[20:22, 20:22] += 1
    got = Spectrum(matrix.clone())
    assert torch.allclose(got.values, torch.linalg.eigvalsh(matrix).flip(0), atol=1e-13)
    found = got.vectors(5)
    assert torch.allclose(found.T @ found, torch.eye(5, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(matrix @ found, found * got.values[:5], atol=1e-12)


def test_without_scipy_torch_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = gram(40, 2, 0)
    before = Spectrum(matrix.clone())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(spectrum, "_Tridiagonal", None)
    after = Spectrum(matrix.clone())
    assert torch.allclose(before.values, after.values)
    spaces = [each.vectors(2) @ each.vectors(2).T for each in (before, after)]
    assert torch.allclose(*spaces, atol=1e-10)


def test_the_matrix_is_worked_on_in_place() -> None:
    matrix = gram(64, 2, 0)
    place = matrix.data_ptr()
    got = Spectrum(matrix)
    assert got._reduced._held.ctypes.data == place
