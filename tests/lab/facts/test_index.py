"""FAISS against torch's exact search."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st

from forgetless.errors import ForgetlessError
from forgetless.lab.facts.index import Index

pytest.importorskip("faiss", reason="FAISS is not installed")


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 70), st.integers(0, 2**32), st.booleans())
@how(max_examples=80)
def test_nearest_against_torch(keys: int, width: int, most: int, seed: int, ties: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    held, queries = (torch.randn(rows, width, generator=generator) for rows in (keys, 3))
    if ties:
        held, queries = held.round(), queries.round()  # many equal products, all of them exact
    index = Index(held.numpy())
    assert len(index) == keys
    products = queries @ held.T
    best = products.topk(min(most, keys), 1).values
    for row, found in enumerate(index.nearest(queries.numpy(), most)):
        numbers = [number for number, _ in found]
        assert len(set(numbers)) == len(numbers) == min(most, keys)
        assert [product for _, product in found] == pytest.approx(best[row].tolist(), abs=1e-5)
        assert products[row, numbers].tolist() == pytest.approx(best[row].tolist(), abs=1e-5)


def test_keys_of_any_kind_and_no_queries() -> None:
    keys = np.eye(3)[:, [2, 0, 1]].T  # float64, not contiguous
    assert Index(keys).nearest(np.array([[0.0, 0.5, 1.0]]), 2) == [[(0, 1.0), (2, 0.5)]]
    assert Index(keys).nearest(np.zeros((0, 3)), 2) == []


def test_keys_that_cannot_be_searched() -> None:
    with pytest.raises(ForgetlessError, match=r"^there is nothing to retrieve from: the set is empty\.$"):
        Index(np.zeros((0, 3)))
    for bad in (math.nan, math.inf):
        with pytest.raises(ForgetlessError, match=r"^the keys to be searched hold NaN or Inf\.$"):
            Index(np.array([[1.0, bad]]))


def test_queries_that_have_no_answer() -> None:
    index = Index(np.eye(3))
    with pytest.raises(ForgetlessError, match=r"^the keys have 3 numbers and the queries \[1, 4\]\.$"):
        index.nearest(np.zeros((1, 4)), 1)
    for most in (0, -2):
        with pytest.raises(ForgetlessError, match=rf"^at least one answer must be asked for, not {most}\.$"):
            index.nearest(np.zeros((1, 3)), most)
    for bad in (math.nan, math.inf):
        with pytest.raises(ForgetlessError, match=r"^the queries hold NaN or Inf\.$"):
            index.nearest(np.array([[0.0, 0.0, 0.0], [0.0, bad, 0.0]]), 2)


@pytest.mark.usefixtures("unchecked")
def test_a_single_query_without_an_axis_for_it() -> None:
    with pytest.raises(ForgetlessError, match=r"^the keys have 3 numbers and the queries \[3\]\.$"):
        Index(np.eye(3)).nearest(np.zeros(3), 1)


def test_without_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ForgetlessError, match=r"^retrieval needs FAISS: pip install 'forgetless\[facts\]'\.$"):
        Index(np.eye(3))
