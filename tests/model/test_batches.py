"""What data is: one batch, a Dataset, or an iterable of batches; and one sample of a batch."""

from __future__ import annotations

import copy
import math
from collections import UserDict, namedtuple
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import forgetless
from forgetless.errors import ForgetlessError
from forgetless.model import batches
from refused import REFUSED_DATA, Unequal

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
        batches.inputs(3)
    assert str(raised.value) == (
        "a batch must be a tensor, a tuple with the inputs first or a dict of tensors, not int; collate_fn= makes "
        "batches of samples, and what else a model takes comes through forward=."
    )


def test_a_batch_without_a_sample_axis() -> None:
    with pytest.raises(ForgetlessError) as raised:
        batches.size({"temperature": torch.tensor(1.0)})
    assert str(raised.value) == (
        "a batch holds no tensor with a sample axis, so its samples cannot be counted; if the data are single samples, "
        "collate_fn= makes batches of them."
    )


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


Pair = namedtuple("Pair", "x y")


class Encoding(UserDict[str, Any]):
    """As BatchEncoding: keys are attributes too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["data"][name]
        except KeyError:
            raise AttributeError(name) from None


@dataclass(frozen=True)
class Sample:
    x: Tensor
    note: str = "kept"


class Graph:
    """As a PyG `Data`: attributes behind `keys`, and a method `to`."""

    def __init__(self, **stored: Any) -> None:
        self.__dict__["store"] = stored

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name not in self.__dict__.get("store", {}):
            raise AttributeError(name)
        return self.__dict__["store"][name]

    def __setattr__(self, name: str, value: Any) -> None:
        self.__dict__["store"][name] = value

    def __copy__(self) -> Graph:
        return Graph(**self.__dict__["store"])

    def keys(self) -> list[str]:
        return list(self.__dict__["store"])

    def to(self, device: Any) -> Graph:
        return Graph(**{k: v.to(device) if isinstance(v, Tensor) else v for k, v in self.__dict__["store"].items()})


class Listed(list[Any]):
    pass


KEPT: dict[str, Any] = {
    "a named tuple": Pair(X, Y),
    "a UserDict": Encoding(x=X),
    "a dataclass": Sample(X),
    "an object": Graph(x=X, note="kept"),
    "a list of its own kind": Listed([X, Y]),
    "nested": {"x": X, "more": Pair(Sample(X), [Encoding(x=X)])},
}


@pytest.mark.parametrize("what", KEPT)
def test_a_batch_keeps_its_type(what: str) -> None:
    batch = KEPT[what]
    doubled = batches.mapped(batch, lambda tensor: tensor * 2)
    assert type(doubled) is type(batch)
    assert batches.form(doubled) == batches.form(batch)
    pairs = list(zip(batches.tensors(doubled), batches.tensors(batch), strict=True))
    assert pairs
    assert all(torch.equal(twice, once * 2) for twice, once in pairs)
    assert batches.size(batches.rows(batch, 1, 3)) == 2
    assert batches.size(batch) == 6  # it is not changed itself
    assert batches.mapped(batch, lambda tensor: tensor) is batch


@pytest.mark.parametrize("what", KEPT)
def test_forward_gets_the_type_that_was_given(what: str) -> None:
    torch.manual_seed(0)
    model, batch, seen = nn.Linear(2, 3), KEPT[what], set()

    def forward(module: nn.Module, given: Any) -> Tensor:
        seen.add(type(given))
        found: Tensor = module(given.x if hasattr(given, "x") else given[0] if isinstance(given, list) else given["x"])
        return found

    found = forgetless.mas(model, [batch], forward=forward, progress=False)
    assert seen == {type(batch)}
    expected = forgetless.mas(model, X, progress=False)
    assert torch.allclose(found.sums["weight"], expected.sums["weight"])


def test_a_dataclass_or_object_is_one_batch_and_goes_into_the_model_whole() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(2, 3)

        def forward(self, batch: Any) -> Tensor:
            return self.lin(batch.x)  # type: ignore[no-any-return]

    model = Net()
    for batch in (Sample(X), Graph(x=X), [Sample(X)]):
        assert forgetless.mas(model, batch, progress=False).count == 6
    ring = torch.tensor([[0, 1, 2], [1, 2, 0]])
    graph = Graph(x=X[:3], edge_index=ring)
    pooled = lambda m, g: m.lin(g.x).mean(0, keepdim=True)  # noqa: E731
    assert forgetless.mas(model, [graph, copy.copy(graph)], forward=pooled, progress=False).count == 2
    several = Graph(x=X, edge_index=ring, batch=torch.tensor([0, 0, 1, 1, 2, 2]))
    with pytest.raises(ForgetlessError, match="a batch of 3 graphs has no sample axis; give batches of one graph"):
        forgetless.mas(model, several, forward=pooled, progress=False)


def test_patches_without_rows_are_counted_by_their_texts() -> None:
    given = {"pixel_values": torch.randn(9, 5), "input_ids": torch.zeros(3, 4)}
    assert batches.size(given) == 3
    assert batches.rows(given, 0, 1)["pixel_values"].shape == (9, 5)


@pytest.mark.parametrize("what", REFUSED_DATA)
def test_what_makes_no_batch_is_told_the_way(what: str) -> None:
    data, sentence = REFUSED_DATA[what]
    with pytest.raises(ForgetlessError, match=sentence):
        forgetless.mas(nn.Conv2d(3, 2, 3), data, progress=False)


def test_unequal_pictures_go_one_by_one() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    one_by_one = forgetless.mas(model, Unequal(), batch_size=1, progress=False)
    listed = forgetless.mas(
        model,
        [([picture], 0) for picture in map(Unequal().__getitem__, range(3))],
        forward=lambda m, b: m(torch.stack(b[0])),
        progress=False,
    )
    assert one_by_one.count == listed.count == 3
    assert all(torch.allclose(one_by_one.sums[name], listed.sums[name]) for name in listed.sums)


IDS, MASK = torch.randint(1, 9, (6, 4)), torch.ones(6, 4, dtype=torch.long)


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ((IDS, MASK, Y), "number 2 of 3, of shape (6, 4), looks like a mask"),
        ((IDS, MASK.bool()), "number 2 of 2, of shape (6, 4), looks like a mask"),
        ([IDS, IDS, Y], "number 2 of 3, of shape (6, 4), looks like an input"),
        ((X, X + 1, Y), "number 2 of 3, of shape (6, 2), looks like an input"),
        (Pair(X, X.clone()), "'y' of 2, of shape (6, 2), looks like an input"),
        ((IDS, Y), None),
        ((IDS, IDS), None),  # labels of a language model
        ((X, torch.eye(6)), None),  # labels as rows of probabilities
        ((X, Y, Y), None),
        ((X,), None),
        (X, None),
        ({"x": X, "mask": MASK}, None),
    ],
)
def test_members_of_a_tuple_that_are_not_used(batch: Any, said: str | None) -> None:
    found = batches.left_out(batch)
    assert (found is None) == (said is None)
    assert said is None or said in str(found)


def test_it_is_said_once_and_not_with_forward(recwarn: pytest.WarningsRecorder) -> None:
    model = nn.Linear(2, 3)
    forgetless.mas(model, [(X, X + 1, Y), (X, X + 1, Y)], progress=False)
    assert [str(each.message) for each in recwarn if "only the first member of a tuple" in str(each.message)][1:] == []
    assert len(recwarn) == 1
    forgetless.mas(model, (X, X + 1, Y), forward=lambda m, b: m(b[0] + b[1]), progress=False)
    assert len(recwarn) == 1


PICTURES = (torch.zeros(3, 4, 4), torch.ones(3, 5, 5))


@pytest.mark.parametrize("batch", [(PICTURES, ({"n": 0}, {"n": 1})), [list(PICTURES), [0, 1]], (PICTURES, None)])
def test_listed_pictures_come_apart(batch):
    first, second = batches.listed(batch)
    assert type(first) is type(batch)
    assert batches.size(first) == 1
    assert batches.inputs(second)[0] is PICTURES[1]
    assert first[1] is None or len(first[1]) == 1


@pytest.mark.parametrize(
    "batch",
    [PICTURES, (PICTURES, (0,)), (PICTURES[0], 1), ((PICTURES[0],), (0,)), {"x": PICTURES}, (PICTURES, torch.ones(2))],
)
def test_other_batches_are_not_listed(batch):
    assert batches.listed(batch) is None
