"""From samples to batches: `collate_fn=`, and what works without it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

import forgetless
from forgetless.errors import ForgetlessError
from forgetless.model import batches, collation
from refused import Rows, Unequal

WORDS = {"a": 1, "cat": 2, "sat": 3, "down": 4}
X = torch.ones(2, 3)
TEXTS = ["a cat", "a cat sat down", "sat", "cat sat", "down down down"]


def tokenize(texts: list[str]) -> dict[str, Tensor]:
    """As a tokenizer with padding=True, return_tensors="pt"."""
    ids = [torch.tensor([WORDS[word] for word in text.split()]) for text in texts]
    masks = [torch.ones_like(each) for each in ids]
    pad = nn.utils.rnn.pad_sequence
    return {"input_ids": pad(ids, batch_first=True), "attention_mask": pad(masks, batch_first=True)}


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head = nn.Embedding(5, 4), nn.Linear(4, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.head(self.embedding(input_ids).tanh())  # type: ignore[no-any-return]


class Sequence(Dataset[str]):
    def __len__(self) -> int:
        return len(TEXTS)

    def __getitem__(self, n: int) -> str:
        return TEXTS[n]


class Stream(IterableDataset[str]):
    def __iter__(self) -> Iterator[str]:
        return iter(TEXTS)


@pytest.mark.parametrize("made", [lambda: TEXTS, Sequence, Stream, lambda: (text for text in TEXTS)])
def test_samples_become_batches(made: Any) -> None:
    found = forgetless.mas(Model(), made(), collate_fn=tokenize, batch_size=2, progress=False)
    assert found.count == 5
    expected = forgetless.mas(Model(), [tokenize([text]) for text in TEXTS], progress=False)
    assert all(torch.allclose(found.sums[name], expected.sums[name]) for name in expected.sums)


def test_batches_of_samples_are_there_for_every_loop() -> None:
    data = batches.of(TEXTS, 2, tokenize)
    assert [[batches.size(batch) for batch in data] for _ in range(2)] == [[2, 2, 1]] * 2


@pytest.mark.parametrize(
    "estimator",
    [forgetless.mas, forgetless.local_mas, forgetless.fisher, forgetless.output_curvature],
)
def test_every_estimator_takes_it(estimator: Any) -> None:
    assert estimator(Model(), TEXTS, collate_fn=tokenize, progress=False).count == 5


def test_rows_of_a_dataset_become_tensors_and_their_texts_stay_behind() -> None:
    rows = [{"text": "a cat", "words": ["a", "cat"], "input_ids": [1, 2], "weight": 0.5}, {"text": "", "words": []}]
    rows[1] |= {"input_ids": [3, 4], "weight": 1.0}
    (batch,) = batches.of(Rows(*rows), None)
    assert list(batch) == ["input_ids", "weight"]
    assert batch["input_ids"].tolist() == [[1, 2], [3, 4]]
    assert batch["weight"].tolist() == [0.5, 1.0]
    assert forgetless.mas(Model(), Rows({"input_ids": [1, 2]}, {"input_ids": [3, 4]}), progress=False).count == 2
    unequal = Rows({"input_ids": [1, 2]}, {"input_ids": [3]})
    assert forgetless.mas(Model(), unequal, batch_size=1, progress=False).count == 2


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([{"picture": object()}], r"column 'picture' of the Dataset holds no numbers of one size a row \(object\)"),
        ([{"a": [[1], [2, 3]]}], "column 'a' of the Dataset holds no numbers .* or leave the column out"),
        ([{"input_ids": None}], "column 'input_ids' of the Dataset holds no numbers"),
        ([{"seq_lengths": [2]}, {"seq_lengths": [1, 1]}], "rows of the Dataset are packed, .* padding_free=True"),
    ],
)
def test_rows_that_are_no_numbers(rows: list[dict[str, Any]], sentence: str) -> None:
    with pytest.raises(ForgetlessError, match=sentence):
        list(batches.of(Rows(*rows), None))


def test_rows_are_dicts() -> None:
    with pytest.raises(ForgetlessError, match="a row of the Dataset is a int and not a dict; give collate_fn="):
        collation.columns([3])


def test_a_real_dataset() -> None:
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict({"text": TEXTS[:2], "input_ids": [[1, 2], [3, 4]]})
    for given in (data, data.with_format("torch"), data.to_iterable_dataset()):
        assert forgetless.mas(Model(), given, progress=False).count == 2
    found = forgetless.mas(
        Model(), data, collate_fn=lambda rows: tokenize([row["text"] for row in rows]), progress=False
    )
    assert found.count == 2
    with pytest.raises(ForgetlessError, match=r"a datasets\.DatasetDict holds several sets; give one of them: 'train'"):
        forgetless.mas(Model(), datasets.DatasetDict(train=data), progress=False)


def test_pictures_of_unequal_size_go_one_by_one_or_are_made_equal() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    pictures = [torch.randn(3, 6 + k, 7) for k in range(3)]
    one_by_one = forgetless.mas(model, pictures, collate_fn=torch.stack, batch_size=1, progress=False)
    assert one_by_one.count == 3
    cut = lambda some: torch.stack([each[:, :6] for each in some])  # noqa: E731
    assert forgetless.mas(model, pictures, collate_fn=cut, progress=False).count == 3
    with pytest.raises(ForgetlessError, match=r"collate_fn= does not make a batch of these samples .*equal size"):
        forgetless.mas(model, pictures, collate_fn=torch.stack, progress=False)


def test_pictures_of_pil_need_a_collate_fn() -> None:
    image = pytest.importorskip("PIL.Image")
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    pictures = [image.new("RGB", (8, 8), (k, 2 * k, 3 * k)) for k in range(3)]
    with pytest.raises(ForgetlessError, match="not Image; collate_fn= makes batches of samples"):
        forgetless.mas(model, pictures, progress=False)

    def read(some: list[Any]) -> Tensor:
        flat = [torch.frombuffer(bytearray(each.tobytes()), dtype=torch.uint8) for each in some]
        return torch.stack([each.view(8, 8, 3).permute(2, 0, 1) / 255 for each in flat])

    assert forgetless.mas(model, pictures, collate_fn=read, progress=False).count == 3


def test_a_single_sample_for_a_batch_is_told_the_way() -> None:
    with pytest.raises(ForgetlessError, match="if the data are single samples, collate_fn= makes batches of them"):
        forgetless.mas(Model(), [{"input_ids": [1, 2]}, {"input_ids": [3]}], progress=False)


@pytest.mark.parametrize(
    "data", [torch.ones(2, 3), (torch.ones(2, 3),), {"x": torch.ones(2, 3)}, DataLoader(Unequal())]
)
def test_what_is_batches_already_takes_no_collate_fn(data: Any) -> None:
    with pytest.raises(ForgetlessError, match=r"collate_fn= makes batches of samples .*; leave out collate_fn="):
        forgetless.mas(Model(), data, collate_fn=tokenize, progress=False)


def test_what_a_collate_fn_raises_is_told() -> None:
    with pytest.raises(ForgetlessError, match=r"collate_fn= does not make a batch of these samples \(str\): 'dog'"):
        forgetless.mas(Model(), ["a dog"], collate_fn=tokenize, progress=False)
    with pytest.raises(ForgetlessError, match=r"does not make a batch of these samples \(dict of 'text', 'n'\): 0"):
        forgetless.mas(Model(), [{"text": "a", "n": 1}], collate_fn=lambda rows: rows[0][0], progress=False)
    with pytest.raises(ForgetlessError, match="as it says"):
        collation.made(lambda samples: (_ for _ in ()).throw(ForgetlessError("as it says")), ["a"])


def test_pictures_that_are_no_tensors():
    image = pytest.importorskip("PIL.Image")
    with pytest.raises(ForgetlessError, match=r"do not make a batch .*give the Dataset a transform that makes tensors"):
        collation.collated([image.new("RGB", (4, 4))] * 2)
