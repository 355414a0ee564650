"""What data is: one batch, a Dataset, or an iterable of batches; and one sample of a batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from forgetless.errors import ForgetlessError
from forgetless.model import batches

X, Y = torch.arange(12.0).view(6, 2), torch.arange(6)


class Pictures(Dataset[Tensor]):
    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> Tensor:
        return X[index]


class Stream(IterableDataset[Tensor]):
    def __iter__(self) -> Iterator[Tensor]:
        return iter(X)


def pooled(given: Any, batch_size: int | None = 4) -> Tensor:
    return torch.cat([batches.inputs(batch) for batch in batches.of(given, batch_size)])


@pytest.mark.parametrize(
    "given",
    [
        X,
        (X, Y),
        Pictures(),
        TensorDataset(X, Y),
        Stream(),
        DataLoader(TensorDataset(X, Y), 4),
        [X[:1], X[1:]],
        [(X[:3], Y[:3]), (X[3:], Y[3:])],
        (batch for batch in (X[:2], X[2:])),
    ],
    ids=["tensor", "tuple", "Dataset", "TensorDataset", "IterableDataset", "DataLoader", "list", "pairs", "generator"],
)
def test_every_kind_of_data_gives_its_inputs(given: Any) -> None:
    assert torch.equal(pooled(given), X)


def test_a_dataset_is_batched() -> None:
    assert [batches.size(batch) for batch in batches.of(Pictures(), 4)] == [4, 2]


def test_a_dict_is_keywords_without_labels() -> None:
    given = {"input_ids": Y, "labels": Y, "label": Y, "label_ids": Y, "attention_mask": Y}
    assert list(batches.inputs(given)) == ["input_ids", "attention_mask"]
    assert batches.labels(given) is Y
    assert batches.labels((X, Y)) is Y


@pytest.mark.parametrize("given", [X, (X,), {"x": X}, (X, "cats")])
def test_no_labels(given: Any) -> None:
    with pytest.raises(ForgetlessError) as raised:
        batches.labels(given)
    assert str(raised.value) == "a batch has no labels: they are the second of a tuple, or 'labels' of a dict."


def test_data_of_no_kind() -> None:
    with pytest.raises(ForgetlessError) as raised:
        batches.of(3, None)
    assert str(raised.value) == "data must be a tensor, a tuple, a dict, a Dataset or an iterable of batches, not int."


def test_a_batch_of_no_kind() -> None:
    with pytest.raises(ForgetlessError) as raised:
        batches.inputs("text")
    assert str(raised.value) == (
        "a batch must be a tensor, a tuple with the inputs first or a dict of tensors, not str."
    )


def test_a_batch_without_a_sample_axis() -> None:
    with pytest.raises(ForgetlessError) as raised:
        batches.size({"temperature": torch.tensor(1.0)})
    assert str(raised.value) == "a batch holds no tensor with a sample axis, so its samples cannot be counted."


@given(start=st.integers(0, 6), stop=st.integers(0, 6))
def test_rows_keep_the_form_of_the_batch(start: int, stop: int) -> None:
    scale = torch.tensor(2.0)
    batch = {"x": X, "pair": (Y, [X]), "scale": scale, "note": "kept"}
    piece = batches.rows(batch, start, stop)
    assert torch.equal(piece["x"], X[start:stop])
    assert torch.equal(piece["pair"][0], Y[start:stop])
    assert torch.equal(piece["pair"][1][0], X[start:stop])
    assert piece["scale"] is scale
    assert piece["note"] == "kept"


def test_nan_is_named_by_its_sample() -> None:
    bad = X.clone()
    bad[4, 1] = float("inf")
    with pytest.raises(ForgetlessError) as raised:
        batches.refuse_non_finite((bad, Y), "batch 7")
    assert str(raised.value) == "the inputs hold NaN or Inf: batch 7, sample 4; clean the data first."
    batches.refuse_non_finite((X, bad), "batch 7")  # labels do not matter


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_finite(dtype: torch.dtype) -> None:
    most = torch.finfo(dtype).max
    assert batches.finite(torch.tensor([most, most, -most], dtype=dtype))  # though their sum may overflow
    assert batches.finite(torch.empty(0, dtype=dtype))
    for bad in (math.nan, math.inf, -math.inf):
        assert not batches.finite(torch.tensor([1.0, bad, most], dtype=dtype))
    assert not batches.finite(torch.tensor([math.inf, -math.inf], dtype=dtype))
